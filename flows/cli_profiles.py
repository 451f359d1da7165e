"""Commands about single profiles: preview, profile-of, and what to do about those in quarantine."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli_inspect import published
from flows.cli_options import Options, command
from flows.cli_output import emit_json, emit_table, last_word, say

if TYPE_CHECKING:
    from flows.steps.questions import Question

IDS = Annotated[list[str] | None, typer.Argument(help="Item or user ids.")]
CODE = Annotated[str | None, typer.Option("--code", help="All rows of one code, such as truncated.")]


class Kind(StrEnum):
    """What a profile describes."""

    ITEM = "item"
    USER = "user"


def register(app: typer.Typer) -> None:
    """Adds preview, profile-of and quarantine."""

    @command(app, "preview")
    def preview(
        options: Options,
        ids: IDS = None,
        n: Annotated[int, typer.Option("-n", min=1, help="How many, where no ids are given.")] = 5,
        kind: Annotated[Kind, typer.Option("--kind", help="Items or users.")] = Kind.ITEM,
        send: Annotated[bool, typer.Option("--send", help="Ask, through the ledger and the caps.")] = False,
    ) -> int:
        """A few prompts as they would be sent; with --send beside what is made of the replies."""
        return show_preview(options, kind.value, n, ids or [], send)

    @command(app, "profile-of")
    def profile_of(options: Options, entity_id: Annotated[str, typer.Argument(help="An item or user id.")]) -> int:
        """A profile, what it was made from, what it cost, and what it said before."""
        return show_profile(options, entity_id)

    quarantine = typer.Typer(no_args_is_help=True, help="Answers that were put aside: list, retry, accept.")
    app.add_typer(quarantine, name="quarantine")

    @command(quarantine, "list")
    def list_(
        options: Options,
        code: CODE = None,
        limit: Annotated[int, typer.Option("--limit", min=1, help="Rows of the table; --json prints all.")] = 100,
    ) -> int:
        """What is in quarantine, and why."""
        return list_quarantine(options, code, limit)

    @command(quarantine, "retry")
    def retry(
        options: Options,
        ids: IDS = None,
        code: CODE = None,
        everything: Annotated[bool, typer.Option("--all", help="Every answer in quarantine.")] = False,
    ) -> int:
        """Asks for another reply, a few times at most; an answered question is never paid for twice."""
        return retry_quarantine(options, ids or [], code, everything)

    @command(quarantine, "accept")
    def accept(options: Options, ids: IDS = None, code: CODE = None) -> int:
        """Takes the best text or choice of a stored reply as the answer, by your decision; no call is made."""
        return accept_quarantine(options, ids or [], code)


def show_preview(options: Options, kind: str, n: int, ids: list[str], send: bool) -> int:
    """Rendered messages, and with `send` what came back."""
    from flows.progress import open_progress
    from flows.steps.preview import answers, few_questions
    from flows.workspace import opened
    from warehouse import Warehouse

    settings = options.settings()
    found: dict[str, dict[str, Any]] = {}
    if send:
        with opened(settings, "preview --send", open_progress()) as workspace:
            questions = few_questions(settings, workspace.warehouse, kind, n, ids)
            found = answers(workspace, settings, questions)
    else:
        questions = few_questions(settings, Warehouse(settings.warehouse.root), kind, n, ids)
    shown = [_previewed(question, found.get(question.request.entity_id)) for question in questions]
    if options.json:
        emit_json({"kind": kind, "sent": send, "previews": shown})
    else:
        for document in shown:
            _say_preview(document)
    n_good = sum("profile" in answer for answer in found.values())
    n_calls = sum(not answer["cached"] for answer in found.values())
    words = f"{n_good} of {len(found)} replies can be used, {n_calls} calls" if send else "nothing was sent"
    last_word(
        f"{len(shown)} {kind} prompts rendered; {words}", None if send else ["preview", "--send", *options.flags()]
    )
    return 0


def _previewed(question: Question, answer: dict[str, Any] | None) -> dict[str, Any]:
    request, rendered = question.request, question.rendered
    return {
        "kind": request.kind,
        "entity_id": request.entity_id,
        "prompt": f"{rendered.prompt.id} v{rendered.prompt.version}",
        "request_key": request.key,
        "truncated": rendered.truncated,
        "messages": [{"role": role, "content": content} for role, content in rendered.messages],
        "reply": answer,
    }


def _say_preview(document: dict[str, Any]) -> None:
    cut = ", evidence cut to its limits" if document["truncated"] else ""
    say(f"═══ {document['kind']} {document['entity_id']} · {document['prompt']} · {document['request_key'][:12]}{cut}")
    for message in document["messages"]:
        say(f"[{message['role']}]\n{message['content']}\n")
    answer = document["reply"]
    if answer is None:
        return
    if "profile" in answer:
        repaired = f" ({answer['repair']})" if answer.get("repair") else ""
        say(f"[profile{repaired}]\n{answer['profile']}\n")
        if answer.get("reasoning"):
            say(f"[reasoning]\n{answer['reasoning']}\n")
    else:
        say(f"[not usable: {answer['code']}] {answer['detail'] or ''}\n")


def show_profile(options: Options, entity_id: str) -> int:
    """Provenance of the profiles of one id."""
    from flows.errors import UnknownIdError
    from flows.steps.provenance import profiles_of

    warehouse, snapshot = published(options)
    found = profiles_of(warehouse, snapshot, entity_id)
    if not found:
        raise UnknownIdError("item", entity_id, f"snapshot {snapshot.id}", "no profile")
    if options.json:
        emit_json({"snapshot": snapshot.id, "entity_id": entity_id, "profiles": found})
    else:
        for row in found:
            _say_profile(row)
    cost = sum(row["usd"] or 0.0 for row in found)
    n_calls = sum(len(row["calls"]) for row in found)
    last_word(f"{entity_id}: {len(found)} profiles in snapshot {snapshot.id}, {n_calls} calls ({cost:.4f} USD known)")
    return 0


def _say_profile(row: dict[str, Any]) -> None:
    if row.get("source"):
        prompt = f"{row['prompt_id']} v{row['prompt_version']}"
        say(f"{row['kind']} {row['entity_id']}, {row['source']} ({row['model']}), prompt {prompt}")
        say(row["profile"] or "(no text of its own: the mean of its training items' vectors)")
    for fault in row["quarantine"]:
        say(f"{row['kind']} {row['entity_id']} is in quarantine: {fault['code']}: {fault['detail']}")
    for decision in row["decisions"]:
        say(f"accepted by decision of {decision['decided_at']:%Y-%m-%d %H:%M} although {decision['code']}")
    if row.get("reasoning"):
        say(f"reasoning: {row['reasoning']}")
    evidence = [tuple(shown.values()) for shown in row["evidence"]]
    if evidence:
        emit_table("evidence, training rows only", tuple(row["evidence"][0]), evidence)
    if row["calls"]:
        names = ("started_at", "state", "status", "model", "tokens_in", "tokens_out", "usd")
        emit_table("calls", names, [tuple(call[name] for name in names) for call in row["calls"]])
    if len(row["history"]) > 1:
        emit_table(
            "history", ("since", "source", "profile"), [(h["since"], h["source"], h["profile"]) for h in row["history"]]
        )


def list_quarantine(options: Options, code: str | None, limit: int) -> int:
    """Rows put aside, by code; those of the door and of embedding are shown with the profiles."""
    from flows.steps.quarantined import asked

    _, snapshot = published(options)
    rows = [row for row in snapshot.read("quarantine").to_pylist() if code in (None, row["code"])]
    counted = Counter((row["stage"], row["code"]) for row in rows)
    by_code = [{"stage": stage, "code": fault, "rows": n} for (stage, fault), n in counted.most_common()]
    if options.json:
        emit_json({"snapshot": snapshot.id, "by_code": by_code, "rows": rows})
    else:
        emit_table("in quarantine", ("stage", "code", "rows"), [tuple(line.values()) for line in by_code])
        names = ("stage", "aspect", "kind", "entity_id", "code", "detail")
        emit_table("", names, [tuple(row[name] for name in names) for row in rows[:limit]])
    more = f", {limit:,} shown" if len(rows) > limit and not options.json else ""
    go_on = ["quarantine", "retry", "--all", *options.flags()] if any(map(asked, rows)) else None
    last_word(f"{len(rows):,} rows in quarantine of snapshot {snapshot.id}{more}", go_on)
    return 0


def retry_quarantine(options: Options, ids: list[str], code: str | None, everything: bool) -> int:
    """One more reply for every chosen row."""
    from flows.errors import SettingSyntaxError

    if not ids and code is None and not everything:
        raise SettingSyntaxError(
            "semalign quarantine retry", "ids, --code CODE or --all: what is asked may be paid for"
        )
    return _decide(options, "retry", ids, code)


def accept_quarantine(options: Options, ids: list[str], code: str | None) -> int:
    """The best stored text or choice of every chosen row becomes its answer."""
    from flows.errors import SettingSyntaxError

    if not ids and code is None:
        raise SettingSyntaxError("semalign quarantine accept", "ids or --code CODE: look at them first")
    return _decide(options, "accept", ids, code)


def _decide(options: Options, what: str, ids: list[str], code: str | None) -> int:
    from flows.progress import open_progress
    from flows.refresh import answer_again, refresh_until
    from flows.run_summary import run_summary
    from flows.steps.quarantined import answers_aside, aspects_to_redo, chosen_answers
    from flows.workspace import opened

    _, snapshot = published(options)
    chosen = chosen_answers(snapshot, ids, code)
    aspects = aspects_to_redo(snapshot, chosen)
    settings, progress = options.settings(), open_progress()
    try:
        with opened(settings, f"quarantine {what}", progress) as workspace:
            if what == "retry":
                workspace.again = chosen
            else:
                workspace.accepting = chosen
            found = (
                answer_again(settings, workspace, aspects) if aspects else refresh_until("profile", settings, workspace)
            )
            summary = run_summary(workspace, found)
            after = workspace.warehouse.snapshot(summary["snapshot"])
    finally:
        progress.close()
    left = chosen & answers_aside(after)
    document = {**summary, "chosen": len(chosen), "mended": len(chosen) - len(left), "left": sorted(left)}
    if options.json:
        emit_json(document)
    cost = "price unknown" if summary["usd"] is None else f"{summary['usd']:.4f} USD"
    words = f"{len(chosen) - len(left)} of {len(chosen)} answers {'accepted' if what == 'accept' else 'mended'}"
    last_word(
        f"quarantine {what}: {words}, {summary['calls']:,} calls ({cost}), snapshot {after.id}; the later stages next",
        ["run", *options.flags()],
    )
    return 3 if left else 0
