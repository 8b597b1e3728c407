"""Changed copies of a module: some of its parts, and patches; the real Go builds and runs what is left."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from testbed.errors import UsageError
from testbed.toolchain.changed import Patch, changed_module
from testbed.toolchain.parts import Parts

REGISTRY = """package main

import (
	"fmt"

	"example.invalid/program/internal/conns"
	"example.invalid/program/internal/service/alpha"
	"example.invalid/program/internal/service/beta"
	"example.invalid/program/internal/service/gamma"
)

func main() {
	for _, part := range []string{
		alpha.Name(conns.Clients{}),
		beta.Name(conns.Clients{}),
		gamma.Name(conns.Clients{}),
	} {
		fmt.Println(part)
	}
}
"""
CLIENTS = """package conns

import (
	"net/http"
	other "net/url"
	"os"
)

type Clients struct{}

func (c *Clients) AlphaClient() *http.Client {
	return nil
}

func (c *Clients) BetaClient() *other.URL {
	return nil
}

func (c *Clients) GammaClient() *os.File {
	return nil
}
"""
PART = """package {name}

import "example.invalid/program/internal/conns"
{more}
func Name(c conns.Clients) string {{
	_ = c.{client}Client()
	return "{name}"
}}
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A program of three parts, of which alpha imports beta."""
    root = tmp_path / "module"
    files = {
        "go.mod": "module example.invalid/program\n\ngo 1.24\n",
        "main.go": REGISTRY,
        "internal/conns/clients.go": CLIENTS,
        "internal/conns/clients_test.go": "package conns\n\nthis is not Go\n",
        "internal/generate/main.go": "package main\n\n// c.GammaClient() is named here, and nobody builds it\n",
    }
    more = '\nimport _ "example.invalid/program/internal/service/beta"\n'
    for name in ("alpha", "beta", "gamma"):
        files[f"internal/service/{name}/{name}.go"] = PART.format(
            name=name, client=name.title(), more=more if name == "alpha" else ""
        )
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o444)
    return root


def parts(*keep: str) -> Parts:
    return Parts(folder="internal/service", keep=list(keep), registry="main.go", clients="internal/conns/clients.go")


def changed(module: Path, tmp_path: Path, patches: list[Patch], wanted: Parts | None = None) -> Path:
    """The changed copy."""
    scratch, lock = tmp_path / "scratch", tmp_path / "lock"
    for folder in (scratch, lock):
        folder.mkdir()
    (lock / "go.mod").write_text("module tools\n\nreplace example.invalid/named => example.invalid/program v1.0.0\n")
    (lock / "go.sum").write_text("")
    modfile = changed_module(module, lock, "example.invalid/program", patches, wanted, scratch)
    copy = scratch / "module"
    assert modfile.read_text().split() == ["module", "tools", "replace", "example.invalid/named", "=>", str(copy)]
    assert modfile.with_suffix(".sum").is_file()
    return copy


def said_by(copy: Path) -> list[str]:
    return subprocess.check_output(["go", "run", "."], cwd=copy, text=True).split()


@pytest.mark.parametrize(
    ("keep", "clients"),
    [(("alpha",), {"Alpha", "Beta"}), (("beta", "gamma"), {"Beta", "Gamma"}), (("beta",), {"Beta"})],
)
def test_what_is_wanted_and_what_that_needs_is_left(
    module: Path, tmp_path: Path, keep: tuple[str, ...], clients: set[str]
) -> None:
    copy = changed(module, tmp_path, [], parts(*keep))
    assert said_by(copy) == list(keep)
    text = (copy / "internal/conns/clients.go").read_text()
    assert {name for name in ("Alpha", "Beta", "Gamma") if f"{name}Client" in text} == clients
    assert "GammaClient" in (module / "internal/conns/clients.go").read_text()


def test_a_part_that_is_not_there_is_refused(module: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no part delta") as refused:
        changed(module, tmp_path, [], parts("alpha", "delta"))
    assert "tools.toml" in refused.value.fix


def test_a_registry_of_another_shape_is_refused(module: Path, tmp_path: Path) -> None:
    (module / "main.go").chmod(0o644)
    (module / "main.go").write_text(REGISTRY.replace('\t"example.invalid/program/internal/service/gamma"\n', ""))
    with pytest.raises(UsageError, match="does not register"):
        changed(module, tmp_path, [], parts("gamma"))


def patch(old: str) -> Patch:
    return Patch(file="internal/service/alpha/alpha.go", old=old, new='return "patched"', why="to see it")


def test_a_patch_changes_the_copy_alone(module: Path, tmp_path: Path) -> None:
    assert said_by(changed(module, tmp_path, [patch('return "alpha"')])) == ["patched", "beta", "gamma"]
    assert "patched" not in (module / "internal/service/alpha/alpha.go").read_text()


@pytest.mark.parametrize("old", ['return "delta"', "alpha"])
def test_a_patch_that_does_not_fit_is_refused(module: Path, tmp_path: Path, old: str) -> None:
    with pytest.raises(UsageError, match="does not fit") as refused:
        changed(module, tmp_path, [patch(old)])
    assert "tools.toml" in refused.value.fix
