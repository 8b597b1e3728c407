"""A program of which some parts are built: the real Go builds and runs what is left."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from testbed.errors import UsageError
from testbed.toolchain.parts import Parts, write_module

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


@pytest.mark.parametrize(
    ("keep", "clients"),
    [(("alpha",), {"Alpha", "Beta"}), (("beta", "gamma"), {"Beta", "Gamma"}), (("beta",), {"Beta"})],
)
def test_what_is_wanted_and_what_that_needs_is_left(
    module: Path, tmp_path: Path, keep: tuple[str, ...], clients: set[str]
) -> None:
    write_module(parts(*keep), module, tmp_path / "copy")
    said = subprocess.check_output(["go", "run", "."], cwd=tmp_path / "copy", text=True)
    assert said.split() == list(keep)
    text = (tmp_path / "copy/internal/conns/clients.go").read_text()
    assert {name for name in ("Alpha", "Beta", "Gamma") if f"{name}Client" in text} == clients
    assert "GammaClient" in (module / "internal/conns/clients.go").read_text()


def test_a_part_that_is_not_there_is_refused(module: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no part delta") as refused:
        write_module(parts("alpha", "delta"), module, tmp_path / "copy")
    assert "tools.toml" in refused.value.fix


def test_a_registry_of_another_shape_is_refused(module: Path, tmp_path: Path) -> None:
    (module / "main.go").chmod(0o644)
    (module / "main.go").write_text(REGISTRY.replace('\t"example.invalid/program/internal/service/gamma"\n', ""))
    with pytest.raises(UsageError, match="does not register"):
        write_module(parts("gamma"), module, tmp_path / "copy")
