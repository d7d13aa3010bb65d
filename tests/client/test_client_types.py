"""Type checkers of those who install the client see its types."""

import tomllib

from tests.blocks import ROOT


def test_the_installed_package_says_that_it_is_typed() -> None:
    """Without this file (PEP 561) a checker takes everything that the package gives for Any."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert (ROOT / "client" / "py.typed").is_file()
    assert "py.typed" in settings["tool"]["setuptools"]["package-data"]["client"]
