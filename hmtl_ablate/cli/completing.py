"""What the shell offers for an argument or option after the Tab key.

Functions for typer's `autocompletion`: they read little and fast, import no user's module, write nothing, and never
fail; what can't be read has no completions. `in_bash` repairs what bash does to words with `:`, `=` and `@` in them.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

import typer

if TYPE_CHECKING:
    from hmtl_ablate.tracking import StudyRecord, TrialRecord

P = ParamSpec("P")
ASKED = "_HMTL_ABLATE_COMPLETE"
"""Environment variable by which a shell asks for completions; typer derives it from the program's name."""
BREAK = re.compile(r"[:=@]+")
"""What bash makes a word of its own: the characters of its COMP_WORDBREAKS that names here have in them."""
STUDY_ENDINGS = (".yaml", ".yml")


def silent(function: Callable[P, list[str]]) -> Callable[P, list[str]]:
    """The function; [] where it raises. Its log messages would be written across the command line, so there are none.

    It may end by any exception: a damaged store or study file is told to the user by the command, not while they type.
    """

    @wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> list[str]:
        before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            return function(*args, **options)
        except Exception:
            return []
        finally:
            logging.disable(before)

    return call


@silent
def study_files(incomplete: str) -> list[str]:
    """YAML files in the folder of what was typed, and in the folders that begin so."""
    folder, _, _ = incomplete.rpartition("/")
    here = Path(folder or ("/" if incomplete.startswith("/") else "."))
    found = [path for pattern in ("*", "*/*") for path in here.glob(pattern) if path.suffix in STUDY_ENDINGS]
    names = sorted(str(path) for path in found if not any(part.startswith(".") for part in path.parts[1:]))
    return [f"./{name}" for name in names] if incomplete.startswith("./") else names


@silent
def profiles(ctx: typer.Context, incomplete: str) -> list[str]:
    """Profiles of the study file that was typed before."""
    from hmtl_ablate.study.source import parse, read_text

    # Of `run FILE --profile` typer parses no argument, since the option lacks its value: what is left is in `args`.
    file = Path(ctx.params.get("file") or ctx.args[0])
    own = parse(read_text(file, str(file)), str(file)).content.get("profiles")
    return ["quick"] if own is None else list(own.content)


@silent
def studies(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the store's studies."""
    records, _ = _records(ctx)
    return sorted({study.name for study in records})


@silent
def trials(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the store's trials: best:STUDY, STUDY/VARIANT/SEED, and ids once their first digit is there."""
    records, own = _records(ctx)
    names = [study.name for study in records]
    declared = [one for one in own if not (one.stage or one.draw)]
    places = {f"{_named(one.study, one.profile, names)}/{one.variant}/{one.seed}" for one in declared}
    best = {f"best:{_named(one.name, one.profile, names)}" for one in records}
    return [*sorted(best), *sorted(places), *_ids(ctx, incomplete)]


@silent
def modules(incomplete: str) -> list[str]:
    """Python files of the working folder, as `--import` names them."""
    return sorted(path.stem for path in Path().glob("*.py"))


@silent
def settings(incomplete: str) -> list[str]:
    """KEY=VALUE of each option that a study can set, with the value it has by default."""
    from pydantic_core import PydanticUndefined

    from hmtl_ablate.study.options import option_fields

    defaults = {key: field.get_default(call_default_factory=False) for key, field in option_fields().items()}
    return [
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in defaults.items()
        if value is not PydanticUndefined and isinstance(value, (str, int, float, bool, type(None)))
    ]


@silent
def pretext_tasks(incomplete: str) -> list[str]:
    from hmtl_ablate.config import PRETEXT_OPTIONS

    return list(PRETEXT_OPTIONS)


@silent
def report_formats(incomplete: str) -> list[str]:
    from hmtl_ablate.reporting.formats import format_names

    return list(format_names())


@silent
def precisions(incomplete: str) -> list[str]:
    return ["fp32", "fp16", "int8"]


def _records(ctx: typer.Context) -> tuple[Sequence[StudyRecord], Sequence[TrialRecord]]:
    """Studies and trials of the SQLite file in the store; another tracking store is not asked."""
    from hmtl_ablate.tracking.reading import read_records

    return read_records(_store(ctx) / "mlflow.db") or ((), ())


def _named(study: str, profile: str, names: Sequence[str]) -> str:
    """STUDY, or STUDY@PROFILE where it ran at several profiles."""
    return study if names.count(study) < 2 else f"{study}@{profile}"


def _ids(ctx: typer.Context, incomplete: str) -> list[str]:
    if not re.fullmatch(r"[0-9a-f]{1,16}", incomplete):
        return []
    return sorted(path.name for path in (_store(ctx) / "trials").glob(f"{incomplete}*"))


def _store(ctx: typer.Context) -> Path:
    return Path(ctx.params.get("runs") or "runs")


@contextmanager
def in_bash() -> Iterator[None]:
    """Around the program: where bash asks for completions, make words of what it split at `:`, `=` and `@`, and answer
    with the part that it replaces, with a backslash before each space and the like.

    For `best:puz` bash gives the words `best`, `:` and `puz`, and replaces the last of them.
    """
    if os.environ.get(ASKED) != "complete_bash":
        yield
        return
    typed, current = os.environ["COMP_WORDS"].split("\n"), int(os.environ["COMP_CWORD"])
    words, before = joined([*typed, ""][: current + 1])
    os.environ |= {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    quoted = words[-1].startswith(("'", '"'))
    answer = io.StringIO()
    try:
        with redirect_stdout(answer):
            yield
    finally:
        for line in answer.getvalue().splitlines():
            rest = _rest(line, before)
            sys.stdout.write((rest if quoted else re.sub(r"([^\w@%+=:,./~^-])", r"\\\1", rest)) + "\n")


def joined(words: Sequence[str]) -> tuple[list[str], str]:
    """Bash's words up to the current one put together again, and the part of the last that bash does not replace.

    An empty word after a `:` was typed after a space, so it is a word of its own.
    """
    found, before, is_open = list(words[:1]), "", False
    for word in words[1:]:
        is_break = BREAK.fullmatch(word) is not None
        if len(found) > 1 and (is_break or (is_open and word)):
            before = found[-1] + word if is_break else found[-1]
            found[-1] += word
        else:
            before = ""
            found.append(word)
        is_open = is_break
    return found, re.sub(r"\\(.)", r"\1", before)


def _rest(value: str, before: str) -> str:
    """The part of a completion that follows `before`, of which `--option=` is no part of the value."""
    inner = before.partition("=")[2] if before.startswith("--") else before
    return value.removeprefix(inner)
