"""Every notebook runs from top to bottom in a fresh kernel, and is stored without outputs."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.needs("nbclient", "nbformat", "ipykernel")

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]
#: All but the quickest take long.
RUN = [path if path.stem == "photonic" else pytest.param(path, marks=pytest.mark.long) for path in NOTEBOOKS]
#: What every notebook must have printed: that nothing differs, and that the fault that it makes was found.
PRINTED = {
    "fs_neurons": ("0 differ", "first divergence: neurons_1 (fsneuron)"),
    "lerp_psa": ("0 differ", "first divergence: blocks_0_mlp_first (linear)"),
    "nern": (
        "0 of 4500 results differ from those with constants",
        "0 from the estimate",
        "18 images, booted three times: 0 codes differ",
        "18 images, booted three times in HLS: 0 codes differ",
        "was expected, so it is not used",
    ),
    "photonic": (
        "450 of 450 predictions agree",
        "one seed twice: 0 logits differ",
        "100 images with noise and stalls: 0 differ",
        "image 41: 0 of 10 logits differ",
        "found: RTL (compiled)",
    ),
    "superposition": (
        "0 of 4500 results are not torch's",
        "16 images, mode turned three times, with stalls: 0 codes differ",
        "hls  gxx       no stalls      60 images, 0 of 600 values differ",
    ),
    "your_own_network": ("4500 results of 450 images, 0 differ", "first divergence: right_0 (linear)"),
}


def test_they_are_all_known():
    assert [path.stem for path in NOTEBOOKS] == sorted(PRINTED)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_without_outputs(path):
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook.cells)


@pytest.mark.slow
@pytest.mark.parametrize("path", RUN, ids=NAMES)
def test_notebook_runs(path, tmp_path, monkeypatch):
    import nbclient
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output
    )
    assert all(words in printed for words in PRINTED[path.stem])
