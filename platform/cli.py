"""The command `rayramid`.

Exit codes: 0 done; 1 a defect of the program (with its traceback); 2 a mistake of the user's (one line); 3 it ran and
failed; 130 interrupted; 143 terminated.
"""

import sys
from typing import Annotated

import typer

from rayramid import __version__
from rayramid.models.errors import UserError
from rayramid.platform.commands import (
    ablate,
    bench,
    dashboards,
    data,
    demo,
    doctor,
    evaluate,
    init,
    jobs,
    keys,
    lineage,
    models,
    preference,
    sample,
    scores,
    serve,
    spec,
    submit,
    train,
    weights,
)
from rayramid.platform.console import out, say
from rayramid.platform.exit_codes import INTERRUPTED, MISTAKE, TERMINATED

app = typer.Typer(
    name="rayramid",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train and serve video models by pyramidal flow matching, on Ray.",
    epilog="Start with 'rayramid demo --out runs/demo', or write example specs with 'rayramid init DIR'.",
)
app.command("demo")(demo.demo)
app.command("init")(init.init)
app.command("doctor")(doctor.doctor)
app.add_typer(data.app, name="data")
app.command("train")(train.train)
app.command("sample")(sample.sample)
app.command("eval")(evaluate.evaluate)
app.command("ablate")(ablate.ablate)
app.command("scores")(scores.scores)
app.add_typer(preference.app, name="preference")
app.command("serve")(serve.serve)
app.command("bench")(bench.bench)
app.add_typer(keys.app, name="keys")
app.command("lineage")(lineage.lineage)
app.add_typer(models.app, name="models")
app.command("submit")(submit.submit)
app.add_typer(jobs.app, name="jobs")
app.command("plan")(weights.plan)
app.add_typer(weights.app, name="weights")
app.add_typer(spec.app, name="spec")
app.command("dashboards")(dashboards.dashboards)


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(f"rayramid {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and end.", callback=_show_version, is_eager=True)
    ] = False,
) -> None: ...


def main() -> None:
    """Runs the command line; a user's mistake is one line, not a traceback."""
    try:
        app()
    except UserError as error:
        say(f"error: {error}")
        sys.exit(MISTAKE)
    except SystemExit as ending:
        if ending.code in (INTERRUPTED, TERMINATED):
            say("interrupted; the same command goes on where this one stopped")
        raise


if __name__ == "__main__":
    main()
