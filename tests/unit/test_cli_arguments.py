"""Help and mistakes on the command line: every command's help reads, and what is mistyped gets a suggestion."""

from __future__ import annotations

import pytest

from otel_trading.cli import main


def ended(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str]:
    """Run what ends by itself; gives its exit code and what it said."""
    with pytest.raises(SystemExit) as caught:
        main.main(list(arguments))
    return caught.value.code, "".join(capsys.readouterr())


@pytest.mark.parametrize("command", list(main.SUBCOMMANDS))
def test_every_commands_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """Help begins with the usage and has the docstring; no line is wider than a terminal that shows it well."""
    code, shown = ended(capsys, command, "--help")
    assert code == 0
    assert shown.startswith(f"usage: otel-trading {command}")
    assert max(map(len, shown.splitlines())) <= 120


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["confg"], "there is no command 'confg'; did you mean config?"),
        (["docter", "--json"], "there is no command 'docter'; did you mean doctor?"),
        (["zzzz"], "there is no command 'zzzz'\n"),
        (["--versoin"], "unrecognized arguments: --versoin; did you mean --version?"),
        (["run", "--servce=x"], "unrecognized arguments: --servce=x; did you mean --service?"),
        (["doctor", "--jsno"], "unrecognized arguments: --jsno; did you mean --json?"),
        (["doctor", "--timeout", "never"], "'never' is not between 0 and 600 seconds"),
        (["config", "chekc"], "did you mean check?"),
        (["config"], "required: action"),
    ],
)
def test_mistyped(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    """A mistake is told with the nearest thing that exists, ends with 2, and the help is named last."""
    code, shown = ended(capsys, *arguments)
    assert code == 2
    assert said in shown
    assert shown.splitlines()[-1].startswith("Next: otel-trading")
    assert shown.splitlines()[-1].endswith("--help")
