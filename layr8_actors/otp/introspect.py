"""Drawing a live tree for people; it reads the record tables and waits for nothing."""

from __future__ import annotations

from .children import ChildInfo
from .supervisor import Supervisor

__all__ = ("format_tree",)


def format_tree(supervisor: Supervisor) -> str:
    """Draw a supervisor's tree as lines of text: state, incarnation and restarts of each child; no checkpoint.

    Args:
        supervisor: the root; one that does not run is a single line.
    """
    return "\n".join(_lines(supervisor, supervisor.name))


def _lines(supervisor: Supervisor, name: str) -> list[str]:
    if not supervisor.running:
        return [f"{name}  not running"]
    used, allowed = supervisor.restarts_used(), supervisor.max_restarts
    lines = [f"{name}  {supervisor.strategy.value}  restarts {used}/{allowed} in {supervisor.max_seconds:g} s"]
    children = supervisor.which_children()
    width = max((len(child.id) for child in children), default=0)
    for child in children:
        last = child is children[-1]
        lines.append(f"{'└─' if last else '├─'} {_child(child, width)}")
        # A child that is no Supervisor but has one, as a channel does, names it in an attribute.
        below = getattr(child.handle, "supervisor", child.handle)
        if isinstance(below, Supervisor):
            nested = _lines(below, child.id)
            lines.extend(f"{'  ' if last else '│ '} {line}" for line in nested[1:])
    return lines


def _child(child: ChildInfo, width: int) -> str:
    text = f"{child.id:<{width}}  {child.state.value:<10}  incarnation {child.incarnation}  restarts {child.restarts}"
    if child.last_exit is not None:
        text += f"  last exit {child.last_exit}"
    return text
