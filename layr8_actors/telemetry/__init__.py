"""Typed events and the one hook they leave through; knows nothing of actors, sockets or Phoenix."""

from .event import Event as Event
from .hook import Hook as Hook, emit as emit, log_event as log_event
