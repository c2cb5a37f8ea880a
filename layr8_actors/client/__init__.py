"""What a person programs against: handlers, requests, and messages that outlive the process."""
