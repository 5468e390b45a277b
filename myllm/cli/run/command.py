"""The command `myllm run` and its options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from myllm.cli.common import print_json
from myllm.cli.completion import complete_model, complete_session

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from myllm.cli.run.talk import Talk


_Model = Annotated[
    str,
    typer.Argument(
        help="A model's name, as `myllm list` shows it; a GGUF file, as ./model.gguf; or a "
        "repository, as hf.co/org/repo[:file.gguf|:QUANT], which is pulled first.",
        autocompletion=complete_model,
    ),
]
_Prompt = Annotated[
    str | None,
    typer.Argument(
        help="One question; text piped into stdin follows it. Without either, a conversation "
        "begins."
    ),
]
_TopK = Annotated[int | None, typer.Option(help="Sample from the k most likely tokens only.")]
_Session = Annotated[
    str | None,
    typer.Option(help="Continue this conversation, or begin it.", autocompletion=complete_session),
]
_GoOn = Annotated[
    bool, typer.Option("--continue", "-c", help="Continue the last one with this model.")
]
_Store = Annotated[
    bool, typer.Option("--store", help="Keep one question and its answer as a conversation.")
]
_Verbose = Annotated[
    bool, typer.Option("--verbose", help="Print token counts and tokens/s to stderr.")
]
_AsJson = Annotated[
    bool, typer.Option("--json", help="Print the whole answer as JSON (with a prompt).")
]


def run(
    ctx: typer.Context,
    model: _Model,
    prompt: _Prompt = None,
    system: Annotated[str | None, typer.Option(help="Instructions for the model.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 to 2; higher: more random.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus sampling threshold.")] = None,
    top_k: _TopK = None,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens of an answer.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same answer.")] = None,
    session: _Session = None,
    go_on: _GoOn = False,
    store: _Store = False,
    verbose: _Verbose = False,
    as_json: _AsJson = False,
) -> None:
    """Talk to a model, through the running server or one just for this command."""
    from myllm.cli.run.model import server_with
    from myllm.cli.run.question import one_question

    if session is not None and go_on:
        raise typer.BadParameter("give --session or --continue, not both")
    question = one_question(prompt)
    if as_json and question is None:
        raise typer.BadParameter("--json needs a prompt")
    from myllm.cli.run.talk import Choices, Talk

    options = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
    options |= {"max_tokens": max_tokens, "seed": seed}
    given = {name: value for name, value in options.items() if value is not None}
    settings = ctx.obj.settings()
    with server_with(settings, model) as (server, name):
        choices = Choices(system, given, verbose=verbose)
        talk = Talk(server, name, choices, _session(server, name, session, go_on))
        if question is not None:
            _answer(talk, question, store, as_json)
        else:
            _converse(talk, settings.state_dir / "run-history")


def _converse(talk: Talk, history: Path) -> None:
    """Have a conversation, which is stored in any case."""
    from myllm.cli.run.conversation import converse

    is_old = talk.session_id is not None
    if not is_old:
        talk.start_anew()
    converse(talk, history, go_on=is_old)


def _session(server: httpx.Client, model: str, named: str | None, go_on: bool) -> str | None:
    """The id of the conversation to continue. Raises InvalidRequest for an invalid id, which could
    name another route, and when there is no conversation to continue."""
    from myllm.cli.run.talk import latest
    from myllm.sessions.store import check_id

    if named is not None:
        check_id(named)
    return latest(server, model) if go_on else named


def _answer(talk: Talk, question: str, store: bool, as_json: bool) -> None:
    """Answer one question, which is stored only if an option says so."""
    if store and talk.session_id is None:
        talk.start_anew()
    if as_json:
        print_json(talk.whole(question))
        return
    from myllm.cli.run.printing import print_answer

    print_answer(talk.ask(question), talk.model, talk.choices.verbose)
