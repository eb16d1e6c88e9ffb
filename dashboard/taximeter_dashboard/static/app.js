// What HTML cannot do by itself: the details dialog, copying, focus after a swap, the viewer's time zone.
"use strict";
(() => {
  const root = document.body.dataset.root;
  const find = (selector) => document.querySelector(selector);
  document.documentElement.classList.add("js");

  function tell(text) {
    const told = find("#told");
    told.textContent = "";
    requestAnimationFrame(() => { told.textContent = text; });
  }

  // --- Time zone: a cookie, so that the server writes the times ---------------------------------------------------
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  const chosen = document.cookie.split("; ").some((part) => part.startsWith("taximeter_zone="));
  if (!chosen && zone !== "UTC" && find("#main")) {
    document.cookie = `taximeter_zone=${encodeURIComponent(zone)}; path=${root || "/"}; max-age=31536000; samesite=lax`;
    location.reload();
  }
  const offer = find("#zone-offer");
  if (offer && zone !== document.body.dataset.zone) {
    const link = offer.querySelector("a");
    link.href += `&to=${encodeURIComponent(zone)}`;
    link.textContent = `Use this browser’s zone, ${zone}`;
    offer.hidden = false;
  }
  find("#zone-change")?.addEventListener("click", (event) => {
    // The header stays while panels change: back leads to what is shown now.
    const link = event.currentTarget;
    link.href = `${link.href.split("?")[0]}?back=${encodeURIComponent(location.pathname + location.search)}`;
  });
  const clock = (moment) => moment.toLocaleTimeString("en-GB", { timeZone: document.body.dataset.zone });

  // --- One answer at a time: whatever is asked for next cancels what is still on its way ---------------------------
  const LOADING_MS = 150;  // what comes sooner needs no sign that it is coming
  let loading = 0;
  let details = null;  // the request of a dialog that is to open
  let restored = null;  // the request of a page that Back or Forward led to

  function load(begins) {
    clearTimeout(loading);
    if (begins) loading = setTimeout(sign, LOADING_MS, true);
    else sign(false);
  }

  function sign(shown) {
    find("#bar").classList.toggle("busy", shown);
    if (shown) find("#panel")?.setAttribute("aria-busy", "true");
    else find("#panel")?.removeAttribute("aria-busy");
  }

  function cancel() {
    details?.abort();
    restored?.abort();
    details = restored = null;
  }

  // --- Details: the link's own page, inside a dialog -----------------------------------------------------------------
  const dialog = find("#details");
  const OURS = /id="(panel|details)-title"/;  // a proxy before the page has pages of its own
  let opener = null;
  let goBack = false;

  async function open(link) {
    const inside = dialog.querySelector(".inside");
    cancel();
    window.htmx.trigger("#view", "htmx:abort");
    const request = new AbortController();
    details = request;
    load(true);
    try {
      const headers = { "x-taximeter-part": "details", "hx-request": "true" };
      const answer = await fetch(link.href, { headers, signal: request.signal });
      if (!(answer.headers.get("content-type") || "").startsWith("text/html")) throw new Error("no page");
      const text = await answer.text();
      if (request.signal.aborted) return;
      if (!OURS.test(text)) throw new Error("no page of ours");
      inside.innerHTML = text;
    } catch {
      if (!request.signal.aborted) location.href = link.href;
      return;
    } finally {
      if (details === request) { details = null; load(false); }
    }
    const close = document.createElement("button");
    close.type = "button";
    close.className = "close quiet";
    close.textContent = "Close";
    inside.prepend(close);
    const title = inside.querySelector("h2");
    if (title) title.id = "details-title";
    opener = link.id;
    goBack = true;
    history.pushState({ details: true }, "", link.href);
    dialog.showModal();
    dialog.scrollTop = 0;
    if (title) title.focus();
  }

  if (dialog) {
    dialog.addEventListener("close", () => {
      if (goBack) { goBack = false; history.back(); }
      const row = opener && document.getElementById(opener);
      if (row) row.focus();
      dialog.querySelector(".inside").replaceChildren();
    });
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog || event.target.closest(".close")) dialog.close();
    });
  }

  // htmx sets its own handler once the page is ready; ours stands before it, and knows of the dialog.
  window.addEventListener("load", () => {
    const theirs = window.onpopstate;
    window.onpopstate = (event) => {
      if (dialog && dialog.open) {
        goBack = false;
        dialog.close();
      } else if (event.state && event.state.details) {
        location.reload();
      } else if (justClosed) {
        justClosed = false;
      } else if (theirs) {
        theirs.call(window, event);
      }
    };
  });
  let justClosed = false;
  if (dialog) dialog.addEventListener("close", () => { justClosed = true; setTimeout(() => { justClosed = false; }, 200); });

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-details]");
    if (link && dialog && !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0) {
      event.preventDefault();
      open(link);
      return;
    }
    const copier = event.target.closest("button[data-copy]");
    if (copier) copy(copier);
  });

  async function copy(button) {
    const text = document.getElementById(button.dataset.copy).textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      tell("Copied");
    } catch {
      button.textContent = "Select and copy by hand";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  }

  // --- Live: the summary changes in place, rows never do -----------------------------------------------------------------
  const button = find("#live");
  let source = null;
  let again = 0;
  let aliveAt = new Date();
  let toldAt = 0;
  let before = null;
  let refused = false;
  let missed = "";  // what was asked for and could not be had

  function show(state, word) {
    button.dataset.state = state;
    button.querySelector(".word").textContent = word;
    button.title = state === "paused" ? "Go on with updates" : "Pause updates";
    find("#lost").textContent = state === "lost" ? `Updates interrupted, retrying. As of ${clock(aliveAt)}.` : missed;
  }

  function listen() {
    clearTimeout(again);
    source = new EventSource(button.dataset.events);
    source.addEventListener("state", (event) => receive(JSON.parse(event.data)));
    source.addEventListener("over", () => {
      // The right to look has ended with what this page was opened with; a host may have renewed it since.
      source.close();
      refused = true;
      listen();
    });
    source.onerror = () => {
      source.close();
      if (refused) { location.reload(); return; }
      if (button.dataset.state !== "lost") aliveAt = new Date();
      show("lost", "Retrying");
      again = setTimeout(listen, 2000);
    };
  }

  // Over HTTP/1.1 a browser has six connections to a host, and a stream holds one: who has more tabs than that could open no
  // other. So those that are seen listen, and of all others the one that was seen last, for its title.
  let release = null;

  function stop() {
    clearTimeout(again);
    source?.close();
    source = null;
  }

  function keepOrStop() {
    if (!navigator.locks || !source) { stop(); return; }
    const held = () => new Promise((resolve) => { release = resolve; });
    navigator.locks.request("taximeter-unseen", { steal: true }, held).catch(() => {
      release = null;  // another tab was seen after this one
      if (document.hidden) stop();
    });
  }

  function goOn() {
    if (release) release();
    release = null;
    if (!source && button.dataset.state !== "paused") listen();
  }

  function receive(state) {
    refused = false;
    show("live", "Live");
    const card = find("#summary");
    if (card && card.dataset.version !== String(state.version)) {
      const focused = card.contains(document.activeElement) ? document.activeElement.id : "";
      card.outerHTML = state.card;
      if (focused) document.getElementById(focused)?.focus();
    }
    const flipped = before && before.status !== state.status;
    document.title = state.title + (document.title.match(/ · page [\d,]+( of [\d,]+)?$/) || [""])[0];
    news(state);
    if (flipped) tell(find("#sentence").textContent);
    else if (before && before.version !== state.version && Date.now() - toldAt > 10000) {
      toldAt = Date.now();
      tell(`Balance ${find("#balance").textContent}`);
    }
    before = state;
  }

  function news(state) {
    const panel = find("#panel");
    const link = find("#news");
    if (!link || !state) return;
    const what = panel.dataset.panel;
    const count = state[what] - Number(panel.dataset[what]);
    link.hidden = !(count > 0);
    link.textContent = `${count.toLocaleString("en-US")} new ${count === 1 ? what.slice(0, -1) : what}, show`;
  }

  if (button) {
    button.addEventListener("click", () => {
      if (button.dataset.state === "paused") {
        show("live", "Live");
        listen();
      } else {
        stop();
        show("paused", "Paused");
      }
    });
    const begin = () => { if (!document.hidden) listen(); };
    if (document.readyState === "complete") begin();
    else window.addEventListener("load", begin);
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) keepOrStop();
      else goOn();
    });
  }

  // --- Swaps: of two in the panel the later one prevails (hx-sync) -------------------------------------------------------
  if (window.htmx) {
    // htmx writes a request that was cancelled to the console as an error, twice. One that failed is a sendError as well.
    window.htmx.logger = (_, name, detail) => {
      if (name === "htmx:sendAbort" || name === "htmx:afterRequest") delete detail.error;
    };
  }
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.detail.target.id !== "panel") return;
    cancel();
    load(true);
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.target.id === "panel") load(false);
  });
  document.addEventListener("htmx:historyCacheMiss", (event) => {
    cancel();
    window.htmx.trigger("#view", "htmx:abort");
    restored = event.detail.xhr;
    restored.addEventListener("loadend", () => load(false));
    load(true);
  });
  document.addEventListener("htmx:afterSettle", (event) => {
    if (event.detail.target && event.detail.target.classList.contains("effect")) return;
    if (missed) find("#lost").textContent = missed = "";
    news(before);
    const stale = find("#stale");
    if (stale) {
      stale.textContent = `The balance above is from ${button.dataset.state === "live" ? clock(new Date()) : clock(aliveAt)}.`;
      // A panel that could not be loaded brings no tabs with it.
      const path = event.detail.pathInfo?.requestPath.split("?")[0];
      for (const tab of document.querySelectorAll("#tabs a")) {
        if (tab.pathname === path) tab.setAttribute("aria-current", "page");
        else tab.removeAttribute("aria-current");
      }
    }
    const title = document.getElementById(location.hash.slice(1)) || find("#panel-title") || find("#details-title");
    if (title && !dialog.open) {
      title.focus({ preventScroll: true });
      if (title.getBoundingClientRect().top < 0) title.scrollIntoView({ block: "start" });
    }
  });
  // htmx notes the address there for a cache of pages that is switched off: what people read must not stay behind.
  for (const name of ["htmx:pushedIntoHistory", "htmx:afterSettle", "htmx:historyRestore"]) {
    document.addEventListener(name, () => sessionStorage.removeItem("htmx-current-path-for-history"));
  }
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { target, xhr, pathInfo } = event.detail;
    if (target.id !== "panel" || OURS.test(xhr.responseText)) return;
    // Swapped in, it would leave no panel, and none for the next answer either.
    event.detail.shouldSwap = false;
    if (xhr.status < 400) location.href = pathInfo.finalRequestPath;
    else unreachable();
  });
  document.addEventListener("htmx:historyCacheMissLoadError", () => location.reload());
  document.addEventListener("htmx:sendError", unreachable);

  function unreachable() {
    missed = "The page could not be reached. What you see is from before; try again.";
    find("#lost").textContent = missed;
    tell(missed);
  }
})();
