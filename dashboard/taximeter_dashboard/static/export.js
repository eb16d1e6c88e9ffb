// The progress of an export, and a way to cancel it. Without this script, its links are plain downloads.
"use strict";
(() => {
  const count = (number) => number.toLocaleString("en-US");
  const say = { done: (one) => `${count(one.done)} rows exported.`,
    cancelled: () => "Cancelled. What was downloaded is not whole.",
    failed: (one) => `The export broke off after ${count(one.done)} rows. What was downloaded is not whole; try again.` };

  function random() {
    return Array.from(crypto.getRandomValues(new Uint8Array(16)), (one) => one.toString(16).padStart(2, "0")).join("");
  }

  async function follow(box, address) {
    const line = box.querySelector(".export-progress");
    const [bar, text, button] = ["progress", "span", "button"].map((name) => line.querySelector(name));
    line.hidden = false;
    button.hidden = false;
    bar.hidden = false;
    bar.removeAttribute("value");
    text.textContent = "Preparing…";
    let asked = 0;
    button.onclick = () => { fetch(`${address}/cancel`, { method: "POST" }); };
    while (document.body.contains(line) || asked === 0) {
      await new Promise((resolve) => { setTimeout(resolve, 700); });
      asked += 1;
      let one = null;
      try {
        const answer = await fetch(address);
        one = answer.ok ? await answer.json() : { state: "failed", done: 0 };
        if (one.state === "waiting") {
          if (asked < 40) continue;
          one.state = "failed";
        }
      } catch {
        continue;  // the page says elsewhere that its connection is interrupted
      }
      if (say[one.state]) {
        text.textContent = say[one.state](one);
        button.hidden = true;
        bar.hidden = true;
        return;
      }
      if (one.total) { bar.max = one.total; bar.value = one.done; }
      text.textContent = `${count(one.done)}${one.total ? ` of ${count(one.total)}` : ""} rows`;
    }
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-export]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    const box = link.closest(".export");
    const ticket = random();
    const begin = document.createElement("a");
    const marked = box.querySelector("[data-export-bom]").checked && link.id === "export" ? "&bom=1" : "";
    begin.href = `${link.href}&ticket=${ticket}${marked}`;
    begin.download = "";
    begin.click();
    follow(box, `${box.dataset.exports}/${ticket}`);
  });
})();
