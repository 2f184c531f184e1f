"""Nothing is asked of a network: at import, in a fit, or by the command line."""

import subprocess
import sys
import textwrap
from pathlib import Path

HOUSE = Path(__file__).resolve().parents[1]

GUARDED = """
    import tempfile
    from tests.offline import refuse_networks

    refuse_networks()
    import sklearn_din, sklearn_din.metrics, sklearn_din.serving, sklearn_din.inspection.display
    from sklearn_din.__main__ import main
    from sklearn_din.serving.export import export_onnx
    from tests.fitted_pipelines import fit_pipeline, make_frame

    folder = tempfile.mkdtemp()
    frame, y = make_frame()
    model = fit_pipeline(frame, y)
    model._repr_html_()
    sklearn_din.save(model, f"{folder}/model.din")
    assert (sklearn_din.load(f"{folder}/model.din").predict(frame) == model.predict(frame)).all()
    export_onnx(model, f"{folder}/model.onnx")
    rows = frame[["user", "item", "time"]]
    rows.to_csv(f"{folder}/log.csv", index=False)
    columns = ["--user", "user", "--item", "item", "--time", "time"]
    main([f"{folder}/log.csv", *columns, "--epochs", "1", "--picture", f"{folder}/attention.png"])
    print("nobody was asked")
"""


def test_import_fit_save_export_and_command_line_ask_no_network():
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(GUARDED)],
        cwd=HOUSE, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    assert child.stdout.endswith("nobody was asked\n")


def test_the_guard_sees_a_question():
    code = (
        "from tests.offline import refuse_networks; refuse_networks(); import socket;"
        "socket.socketpair(); socket.create_connection(('example.invalid', 9))"
    )
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=HOUSE, capture_output=True, text=True, timeout=60
    )
    assert child.returncode == 3
    assert "socket.getaddrinfo was asked for 'example.invalid'" in child.stderr
