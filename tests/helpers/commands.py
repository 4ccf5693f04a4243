"""What the tests of several commands do."""

from pathlib import Path

import pytest

from undiffuse.cli import main


def refused(capsys: pytest.CaptureFixture, *words: str) -> str:
    """The message of a command that is refused: exit code 2, one sentence, no traceback, nothing written."""
    before = _files()
    with pytest.raises(SystemExit) as end:
        main(list(words))
    assert end.value.code == 2
    message = capsys.readouterr().err.strip()
    assert "Traceback" not in message
    assert len(message.splitlines()) == 1, message
    assert _files() == before
    return message


def _files() -> list[Path]:
    return sorted(path for path in Path.cwd().rglob("*") if "cache" not in path.parts)
