"""A whole audit on S3: the same bytes as in a folder, read from there by analysis and report, and no credentials."""

from pathlib import Path

import pytest
from audit_tools import Images, contents, tiny_model
from store_tools import s3_server

import reports
import stores
from spray.analysis import analyze
from spray.attribution import Attribution, attribute_dataset

STEP = Attribution(block=4, grid=5, thumbnails=8)


def test_an_audit_on_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attribute_dataset(tiny_model(), Images(), tmp_path / "run.zarr", STEP)
    expected = contents(tmp_path / "run.zarr")
    with s3_server(monkeypatch) as bucket:
        url = f"{bucket}/audits/run.zarr"
        run = attribute_dataset(tiny_model(), Images(), url, STEP)
        written = {key: run.floor.read(key) for key in run.floor.sizes("")}
        assert written == expected
        assert analyze(run).groups == [0, 1, 2]
        page = reports.build(url, tmp_path / "report.html")
        everything = [page.read_bytes(), *(run.floor.read(key) or b"" for key in run.floor.sizes(""))]
        assert not [data for data in everything if b"test-secret" in data or b"test-key-id" in data]
        assert stores.check(url) == []


def test_services_that_do_not_answer_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(monkeypatch) as bucket:
        with pytest.raises(stores.NotAStore, match="it is empty"):
            stores.open(f"{bucket}/nothing")
        with pytest.raises(stores.StoreError, match="Check the URL, the network, and the credentials"):
            stores.open("s3://no-such-bucket/run.zarr")
    for url in ("foo://bucket/run", "s3://key:secret@bucket/run"):
        with pytest.raises(stores.StoreError) as caught:
            stores.open(url)
        assert "secret" not in str(caught.value)
