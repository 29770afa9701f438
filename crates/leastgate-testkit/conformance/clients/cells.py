"""A line for each cell, as `scripts.rs` reads them."""

import sys
import traceback


def run(cells):
    """Runs each function, named by its docstring; what it gives back is the note."""
    for cell in cells:
        try:
            note = cell() or "-"
            verdict = "pass"
        except Exception as error:  # a cell that fails must not keep the others from running
            verdict, note = "fail", f"{type(error).__name__}: {error} {traceback.format_exc(limit=-2)}"
        print(cell.__doc__, verdict, " ".join(note.split()), sep="\t")
