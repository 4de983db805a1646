"""Notebooks without Jupyter: the code cells run one after another in this process.

python -m tests.support.notebook launch/tour.ipynb      runs it in an empty folder, and stores the outputs in it
"""

import ast
import base64
import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


def run(path: Path) -> dict[str, Any]:
    """The notebook with the outputs of its cells, which run in the current folder."""
    notebook, names = json.loads(path.read_text()), {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, 1):
        *body, last = ast.parse("".join(cell["source"])).body
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            if isinstance(last, ast.Expr):
                exec(compile(ast.Module(body, []), f"cell {number}", "exec"), names)
                value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
            else:
                exec(compile(ast.Module([*body, last], []), f"cell {number}", "exec"), names)
                value = None
        cell["outputs"] = _outputs(shown.getvalue(), value, number)
        cell["execution_count"] = number
    return notebook


def _outputs(text: str, value: Any, number: int) -> list[dict[str, Any]]:
    outputs: list[dict[str, Any]] = []
    if text:
        outputs.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    if value is not None:
        data: dict[str, Any] = {"text/plain": [repr(value)]}
        if hasattr(value, "_repr_png_"):
            data = {"image/png": base64.b64encode(value._repr_png_()).decode(), "text/plain": ["<picture>"]}
        outputs.append({"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data})
    return outputs


if __name__ == "__main__":
    file = Path(sys.argv[1]).absolute()
    sys.path.insert(0, os.getcwd())
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        done = run(file)
    file.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n")
