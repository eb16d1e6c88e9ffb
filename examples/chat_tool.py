"""A tool as small as it gets: ask, answer, record.

eval "$(taximeter env)"
python examples/chat_tool.py acme "How far is the moon?"
"""

from __future__ import annotations

import sys

from taximeter import FlushTimeoutError, Meter


def answer(question: str) -> str:
    """Stands in for the call of a model."""
    return f"You asked: {question}"


def main() -> int:
    workspace_id, question = sys.argv[1:3]
    # A command can afford to wait half a second for its only check; a server keeps the default of 50 ms.
    with Meter.from_env(source="/examples/chat-tool", timeout_seconds=0.5) as meter:
        if not meter.enabled(workspace_id):
            status = meter.status(workspace_id)
            print(f"AI is disabled for {workspace_id} (status: {status.status or 'unknown'})", file=sys.stderr)
            return 1
        text = answer(question)
        event_id = meter.record(
            workspace_id,
            tool="chat",
            provider="openai",
            model="gpt-4o",
            quantities={"input_tokens": len(question.split()), "output_tokens": len(text.split())},
            input=question,
            output=text,
        )
        print(text)
        try:
            meter.flush(timeout=5)
            print(f"recorded as {event_id}")
        except FlushTimeoutError as late:
            print(f"recorded as {event_id}; {late}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
