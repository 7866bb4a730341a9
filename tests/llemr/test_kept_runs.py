"""Which runs of a failed training are kept for a retry."""

from ray_jobs import train


def test_a_run_whose_first_phase_is_finished_is_kept_for_a_retry(tmp_path):
    run = tmp_path / "stage2-abc"
    (run / "stage2-000020").mkdir(parents=True)
    (run / "stage2-000020" / "aligned.safetensors").touch()
    assert not train.finished_phase(str(tmp_path), "stage2-abc", "stage2")
    (run / "blind-000010").mkdir()
    (run / "blind-000010" / "stage2.safetensors").touch()
    for storage in (str(tmp_path), f"file://{tmp_path}"):
        assert train.finished_phase(storage, "stage2-abc", "stage2")
        assert not train.finished_phase(storage, "stage2-other", "stage2")
