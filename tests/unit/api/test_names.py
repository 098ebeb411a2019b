"""Other projects have TaskRuns and Workflows too: what we tell people to type means ours, wherever they type it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tickwheel_operator.api import KINDS
from tickwheel_operator.api.resource import GROUP

ROOT = Path(__file__).resolve().parents[3]
_VERBS = "get|describe|delete|patch|wait|scale|edit|annotate|label|explain"
_COMMAND = re.compile(rf"kubectl(?:\s+--?[a-z]+[= ]\S+)*\s+(?:{_VERBS})\s+([^#`|;&\n]*)")
_TYPES = {
    name
    for kind in KINDS
    for name in (kind.presentation.plural, kind.kind_name().lower(), "st", "wp", "tr", "wf", "wr", "cal", "ac")
}
_TEXTS = {".md", ".txt", ".py", ".sh", ".yaml", ".tpl", ".json", ""}


def unqualified(text: str) -> list[str]:
    """Commands of kubectl with a name of ours that others may have too."""
    found = []
    for command in _COMMAND.finditer(text):
        for word in command[1].split():
            kinds = word.strip("\"'").partition("/")[0].split(",")
            if set(kinds) & _TYPES:
                found.append(command[0].strip())
    return found


def test_every_command_in_documents_messages_and_scripts_names_our_kinds_in_full() -> None:
    assert unqualified("kubectl get -n shops tr/x -o yaml") != []
    assert unqualified("kubectl delete workerpools,jobs --all -A") != []
    assert unqualified(f"kubectl delete workerpools.{GROUP},jobs --all -A; kubectl get twr") == []
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files = [ROOT / name for name in listed if Path(name).suffix in _TEXTS and not name.endswith("test_names.py")]
    found = {
        str(file.relative_to(ROOT)): commands
        for file in files
        if file.is_file() and (commands := unqualified(file.read_text(encoding="utf-8", errors="ignore")))
    }
    assert found == {}


def test_short_names_are_ours_alone() -> None:
    short = [kind.presentation.short for kind in KINDS if kind.presentation.short]
    assert len(set(short)) == len(short)
    # `tr` is Tekton's and `wf` Argo's; no project that we know has short names with tw.
    assert [name for name in short if not name.startswith("tw")] == []
