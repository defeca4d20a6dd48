"""Where QEMU says an image lies."""

import json
from typing import Any

import pytest

from vm_babysitter.adapters.libvirt import qmp

FILE = {"driver": "file", "filename": "/vms/a: \"b\", 'c'.qcow2"}
NAMES: dict[str, tuple[str, str]] = {
    "plain": ("/vms/a", "/vms/a"),
    "described": ("json:" + json.dumps({"driver": "qcow2", "file": FILE}), FILE["filename"]),
    "deeper": (
        "json:" + json.dumps({"driver": "qcow2", "file": {"driver": "raw", "file": FILE}}),
        FILE["filename"],
    ),
    "with a data file": (
        "json:" + json.dumps({"data-file": {"filename": "/x"}, "file": FILE}),
        FILE["filename"],
    ),
    "no file": ('json:{"driver": "nbd"}', 'json:{"driver": "nbd"}'),
    "a number": ('json:{"filename": 1}', 'json:{"filename": 1}'),
    "no JSON": ("json:{", "json:{"),
}


@pytest.mark.parametrize(("told", "path"), NAMES.values(), ids=NAMES)
def test_the_path_of_a_layer_is_found_in_what_qemu_calls_it(told: str, path: str) -> None:
    bitmap = {"name": "b", "recording": True, "inconsistent": False}
    block: dict[str, Any] = {"inserted": {"image": {"filename": told, "format": "qcow2"}}}
    nodes = [{"drv": "qcow2", "file": told, "dirty-bitmaps": [bitmap]}]
    (layer,) = qmp.layers(block, nodes)
    assert layer.path == path
    assert layer.bitmap("b") is not None
