"""What users build on: public names, signatures, a quick import, and commands in help and documents that exist."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

import next3d
from next3d.cli.main import COMMANDS, usage
from next3d.generator.baked import Baked

ROOT = Path(__file__).parent.parent

# Arguments without a default; "name=" with one; "*" and "/" as Python has them.
SIGNATURES = {
    "load": "name= * device= seed=",
    "Generator": "self config topology=",
    "Generator.synthesis": "self ws camera_label vertices= landmarks= * noise= sampling= normals= ray_resolution=",
    "Generator.density": "self points ws= vertices= landmarks= * planes=",
    "Generator.bake": "self ws dtype= noise=",
    "Generator.save_pretrained": "self save_directory **options",
    "Camera.orbit": "yaw= pitch= roll= * radius= pivot= focal=",
    "Camera.look_at": "eye target= up= * focal=",
    "Camera.from_label": "label",
    "Avatar.render": "self params= camera= * mesh= normals=",
    "Avatar.animate": "self motion camera= * normals=",
    "Avatar.mesh": "self params= * mesh= resolution= level= progress=",
    "Avatar.save": "self path",
    "Avatar.load": "path model * dtype=",
    "HeadParams": "self shape= expression= neck= jaw= eyes=",
}


def written(function) -> str:
    """A signature in the notation of SIGNATURES."""
    parts = []
    keyword_only = False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            parts.append("*")
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        parts.append(f"{stars}{parameter.name}{'' if parameter.default is parameter.empty else '='}")
    return " ".join(parts)


def test_public_names():
    assert set(next3d.__all__) == {
        "Avatar",
        "Camera",
        "Generator",
        "GeneratorConfig",
        "HeadModel",
        "HeadParams",
        "InputError",
        "Motion",
        "__version__",
        "load",
    }
    for name in next3d.__all__:
        assert getattr(next3d, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = next3d.nothing


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name):
    owner, _, method = name.partition(".")
    found = getattr(next3d, owner)
    if method:
        found = getattr(found, method)
    elif inspect.isclass(found):
        found = found.__init__
    assert written(found) == SIGNATURES[name]


def test_mapping_and_baked_frames():
    model = next3d.load("untrained:tiny")
    assert written(model.mapping.forward) == "z camera_label= truncation= truncation_cutoff="
    assert written(Baked.synthesis) == "self camera_label vertices= landmarks= * sampling= normals="


def test_importing_and_listing_commands_need_no_torch():
    script = "import sys, next3d, next3d.cli.main as m; m.main(['--help']); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("usage: next3d COMMAND")
    assert result.stdout.splitlines()[-1] == "False"
    assert all(name in usage() for name in COMMANDS)


@pytest.mark.parametrize("chosen", [None, "7"])
def test_waiting_threads_give_their_cores_away_unless_told_otherwise(chosen):
    script = (
        "import os, next3d.cli.main as m\n"
        "try: m.main(['view', '--threads', '0'])\n"
        "except SystemExit as end: print(end.code, os.environ['GOMP_SPINCOUNT'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    environment |= {} if chosen is None else {"GOMP_SPINCOUNT": chosen}
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert result.stdout.split() == ["2", chosen or "5000"]
    assert "at least one thread" in result.stderr


def examples() -> list[tuple[str, str]]:
    """(where, command line) of every line of help, README and documents that calls next3d with options."""
    found = []
    for name, (module, function, _) in COMMANDS.items():
        about = importlib.import_module(module)
        text = f"{inspect.getdoc(getattr(about, function))}\n{inspect.getdoc(getattr(about, 'Arguments', None))}"
        found += [(f"{name} --help", line.strip()) for line in text.splitlines()]
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")  # a command may go on in the next line
        found += [(path.name, part.strip()) for part in (*re.findall(r"`([^`\n]+)`", text), *text.splitlines())]
    return [
        (where, line) for where, line in found if line.startswith("next3d ") and not re.search(r"\\\||\.\.\.|…|`", line)
    ]


def test_every_example_uses_options_that_exist():
    lines = examples()
    assert len(lines) > 20
    for where, line in lines:
        words = shlex.split(line.partition("  ")[0], comments=True)[1:]
        command = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in COMMANDS), None)
        assert command or words[0].startswith("-"), f"{where}: there is no such command: {line}"
        if command is None or words[-1] == "--help":
            continue
        module, function, _ = COMMANDS[command]
        about = importlib.import_module(module)
        parser = tyro.extras.get_parser(getattr(about, "Arguments", getattr(about, function)))
        known = set(re.findall(r"--[\w.-]+", parser.format_help()))
        for word in words:
            option = word.partition("=")[0]
            assert not option.startswith("--") or option in known, f"{where}: no option {option} in: {line}"
