"""Votes of a study counted: how often each model is preferred, with intervals."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from rayramid.models.errors import UserError
from rayramid.pipelines.part import Part
from rayramid.platform.evaluation.preference.study import QUESTIONS, Key
from rayramid.platform.evaluation.results import Share


class Vote(Part):
    """One answer: which side of a pair."""

    pair: str
    question: str
    choice: Literal["left", "right", "tie"]


class Votes(Part):
    """What the page exports: all answers of one voter."""

    study: str
    voter: str
    votes: list[Vote]


def read_votes(path: Path) -> Votes:
    """The votes in a file; UserError if they are none."""
    try:
        return Votes.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: not votes that the page exported: {place}: {first['msg']}") from None


def count(key: Key, sheets: Iterable[Votes]) -> dict[str, Any]:
    """By question the `pairs` of models and each model's share of `wins` over all others, ties left out.

    A voter's last answer to a question about a pair counts. Intervals (95 %, Wilson) take votes as independent, which
    those of one voter or about one prompt are not quite.

    Raises:
        UserError: votes of another study, or about a pair or question that it does not have.
    """
    pairs = {pair.id: pair for pair in key.pairs}
    answers: dict[tuple[str, str, str], str] = {}
    for sheet in sheets:
        if sheet.study != key.study:
            raise UserError(f"the votes of {sheet.voter} are of study {sheet.study}, the key is of {key.study}")
        for vote in sheet.votes:
            if vote.pair not in pairs or vote.question not in QUESTIONS:
                raise UserError(
                    f"the votes of {sheet.voter} are about {vote.pair} ({vote.question}), unknown to the key"
                )
            answers[sheet.voter, vote.pair, vote.question] = vote.choice
    # How often one model won over another, and how often neither did.
    wins: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    ties: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for (_, pair_id, question), choice in answers.items():
        left, right = pairs[pair_id].left, pairs[pair_id].right
        if choice == "tie":
            ties[question][min(left, right), max(left, right)] += 1
        else:
            wins[question][(left, right) if choice == "left" else (right, left)] += 1
    return {
        "study": key.study,
        "seed": key.seed,
        "voters": len({voter for voter, _, _ in answers}),
        "answers": len(answers),
        "questions": {
            question: _question(wins[question], ties[question])
            for question in QUESTIONS
            if wins[question] or ties[question]
        },
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """The counts for people."""
    said = [f"{found['answers']} answers of {found['voters']} voters"]
    for question, counted in found["questions"].items():
        said.append(f"{question}: {QUESTIONS[question]}")
        for pair in counted["pairs"]:
            said.append(f"  {pair['model']} over {pair['other']}: {_share(pair['wins'])}, {pair['ties']} ties")
        if len(counted["models"]) > 2:
            said += [f"  {model} over all: {_share(share)}" for model, share in counted["models"].items()]
    return said


def _question(wins: Counter[tuple[str, str]], ties: Counter[tuple[str, str]]) -> dict[str, Any]:
    met = sorted({(min(two), max(two)) for two in [*wins, *ties]})
    models = sorted({model for two in met for model in two})
    won = {model: sum(count for (winner, _), count in wins.items() if winner == model) for model in models}
    lost = {model: sum(count for (_, loser), count in wins.items() if loser == model) for model in models}
    return {
        "pairs": [
            {
                "model": model,
                "other": other,
                "wins": _counted(wins[model, other], wins[model, other] + wins[other, model]),
                "ties": ties[model, other],
            }
            for model, other in met
        ],
        "models": {
            model: _counted(won[model], won[model] + lost[model])
            for model in sorted(models, key=lambda model: -won[model] / max(1, won[model] + lost[model]))
        },
    }


def _counted(right: int, of: int) -> dict[str, Any]:
    return Share(right, of).to_json() if of else {"share": None, "right": 0, "of": 0}


def _share(counted: Mapping[str, Any]) -> str:
    return str(Share(counted["right"], counted["of"])).strip() if counted["of"] else "no preference"


def load(paths: Iterable[Path]) -> list[Votes]:
    """The votes of files, and of every `.json` in folders."""
    files = [file for path in paths for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    if not files:
        raise UserError("no votes: name files that the page exported, or a folder of them")
    return [read_votes(file) for file in files]
