"""`make try`, a module for each system: `add_arguments`, `show` one piece of its work, `bench` many."""
