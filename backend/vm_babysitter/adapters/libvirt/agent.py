"""The guest agent of one VM, by way of libvirt."""

import json
from typing import Any

import libvirt
import libvirt_qemu

from vm_babysitter.domain.agent import AgentAnswer

# libvirt's own calls for this (fsFreeze, fsThaw) wait forever unless the VM's agent time-out is
# set, which outlives us and which nobody can read to put it back. This call has its own.
_SECONDS = 10
_PING_SECONDS = 5
_NO_ANSWER = "the guest agent does not answer"
_NO_AGENT = "the VM has no guest agent"
_PAUSED = "the VM is paused"
_UNSUPPORTED = frozenset(
    {libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, libvirt.VIR_ERR_OPERATION_UNSUPPORTED}
)
_REFUSED = (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_QEMU)
_SILENT = frozenset({libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_AGENT_UNSYNCED})


def ping(domain: libvirt.virDomain) -> str:
    """Return why the agent cannot be asked for anything, empty if it answers."""
    try:
        _ask(domain, "guest-ping", _PING_SECONDS)
    except libvirt.libvirtError as error:
        return _failure(error).refusal
    return ""


def freeze(domain: libvirt.virDomain) -> AgentAnswer:
    """Have the agent freeze the file systems; errors of libvirt are answers, too."""
    try:
        count = int(_ask(domain, "guest-fsfreeze-freeze", _SECONDS))
    except libvirt.libvirtError as error:
        return _failure(error)
    return AgentAnswer(count, "" if count else "the guest agent found no file system to freeze")


def thaw(domain: libvirt.virDomain) -> AgentAnswer:
    """Have the agent thaw the file systems; errors of libvirt are answers, too."""
    try:
        return AgentAnswer(int(_ask(domain, "guest-fsfreeze-thaw", _SECONDS)))
    except libvirt.libvirtError as error:
        failure = _failure(error)
        return AgentAnswer() if failure.unknown and _is_off(domain) else failure


def _ask(domain: libvirt.virDomain, command: str, seconds: int) -> Any:
    request = json.dumps({"execute": command})
    return json.loads(libvirt_qemu.qemuAgentCommand(domain, request, seconds, 0))["return"]


def _is_off(domain: libvirt.virDomain) -> bool:
    """Whether the VM is off, or gone: nothing in it is frozen then."""
    try:
        return not domain.isActive()
    except libvirt.libvirtError as error:
        return bool(error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN)


def _failure(error: libvirt.libvirtError) -> AgentAnswer:
    number, message = error.get_error_code(), error.get_error_message() or str(error)
    if number in _UNSUPPORTED:
        return AgentAnswer(refusal=_NO_AGENT)
    if (number, error.get_error_domain()) == _REFUSED:
        # libvirt puts the command in quotes and a colon before what the agent said.
        said = message.rpartition("': ")[2]
        return AgentAnswer(refusal=f"the guest agent refused: {said}")
    if number in _SILENT:
        return AgentAnswer(refusal=_NO_ANSWER, unknown=True)
    if number == libvirt.VIR_ERR_OPERATION_INVALID:
        return AgentAnswer(refusal=_PAUSED, unknown=True)
    return AgentAnswer(refusal=message, unknown=True)
