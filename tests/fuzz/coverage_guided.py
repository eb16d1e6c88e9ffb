"""The same laws under atheris, which keeps what reaches new code: for developers who have it (`pip install atheris`).

    python tests/fuzz/coverage_guided.py CORPUS_FOLDER -runs=1000000 -max_len=8000

The first byte of an input chooses the content type, the rest is the body. It stops at the first input that breaks a law and
leaves it in the current folder. It needs nothing but the decoder: no server.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def main() -> None:
    try:
        import atheris
    except ModuleNotFoundError:
        sys.exit("atheris is not installed; tests/fuzz/test_fuzz.py fuzzes without it.")
    with atheris.instrument_imports(include=["taximeter_worker.decode.message", "taximeter_db.money"]):
        from fuzz.messages import CONTENT_TYPES, judge, seeds

    corpus = next((Path(name) for name in sys.argv[1:] if not name.startswith("-")), None)
    if corpus is not None:
        corpus.mkdir(parents=True, exist_ok=True)
        for number, body in enumerate(seeds()):
            (corpus / f"seed-{number}").write_bytes(b"\0" + body)

    def one(data: bytes) -> None:
        if data:
            judge(data[1:], CONTENT_TYPES[data[0] % len(CONTENT_TYPES)])

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
