"""Load that is offered on a schedule of its own, whatever the answers do, and measured from when it was intended."""
