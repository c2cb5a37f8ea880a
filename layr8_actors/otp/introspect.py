"""Drawing a tree for people."""

from __future__ import annotations

import textwrap

from .any_supervisor import AnySupervisor
from .snapshot import ChildSnapshot, SupervisorSnapshot

__all__ = ("format_tree",)

_LONGEST_EXIT = 100  # characters: a snapshot, and the events, have it whole


def format_tree(tree: AnySupervisor | SupervisorSnapshot) -> str:
    """Draw a tree as lines of text: state, incarnation and restarts of each child; no checkpoint.

    Args:
        tree: the root, as it is now, or a snapshot of it; one that does not run is a single line.
    """
    snapshot = tree.snapshot() if isinstance(tree, AnySupervisor) else tree
    if not snapshot.running:
        return f"{snapshot.name}  not running"
    window = f"restarts {snapshot.restarts_used}/{snapshot.max_restarts} in {snapshot.max_seconds:g} s"
    return "\n".join([f"{snapshot.name}  {snapshot.strategy}  {window}", *_lines(snapshot)])


def _lines(supervisor: SupervisorSnapshot) -> list[str]:
    lines: list[str] = []
    width = max((len(child.id) for child in supervisor.children), default=0)
    for child in supervisor.children:
        last = child is supervisor.children[-1]
        lines.append(f"{'└─' if last else '├─'} {_child(child, width)}")
        if child.supervisor is not None:
            lines.extend(f"{'  ' if last else '│ '} {line}" for line in _lines(child.supervisor))
    return lines


def _child(child: ChildSnapshot, width: int) -> str:
    text = f"{child.id:<{width}}  {child.state:<10}  incarnation {child.incarnation}  restarts {child.restarts}"
    if child.supervisor is not None:
        below = child.supervisor
        text += f"  {below.strategy} {below.restarts_used}/{below.max_restarts} in {below.max_seconds:g} s"
    if child.mailbox_depth:
        text += f"  mailbox {child.mailbox_depth}"
    if child.handling is not None:
        text += f"  in {child.handling}"
    if child.next_restart_in is not None:
        text += f"  next in {child.next_restart_in:.3g} s"
    if child.last_exit is not None:
        text += f"  last exit {textwrap.shorten(child.last_exit, _LONGEST_EXIT, placeholder=' ...')}"
    return text
