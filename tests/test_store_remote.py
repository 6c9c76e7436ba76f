"""A whole audit on S3: the same bytes as in a folder, read from there by analysis and report, and no credentials."""

from pathlib import Path

import pytest
from audit_tools import Images, contents, tiny_model
from store_tools import s3_server

import reports
import stores
from spray.analysis import analyze
from spray.attribution import Attribution, attribute_dataset
from spray.findings import find
from stores.remote import ObjectFloor

STEP = Attribution(block=4, grid=5, thumbnails=8)


def test_an_audit_on_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attribute_dataset(tiny_model(), Images(), tmp_path / "run.zarr", STEP)
    expected = contents(tmp_path / "run.zarr")
    with s3_server(monkeypatch) as bucket:
        url = f"{bucket}/audits/run.zarr"
        run = attribute_dataset(tiny_model(), Images(), url, STEP)
        written = {key: run.floor.read(key) for key in run.floor.sizes("")}
        assert written == expected
        handle = analyze(run)
        assert handle.groups == [0, 1, 2]
        find(run, handle)
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


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://example.org/run.zarr", "cannot hold a store: a web server neither lists"),
        ("https://example.org/run.zarr", "cannot hold a store: a web server neither lists"),
        ("memory:///run.zarr", "cannot hold a store: what lies in a process's memory"),
        ("hdfs://example.org/run.zarr", r"A store lies at a path, s3://BUCKET/…, gs://BUCKET/… or az://CON"),
        ("az://container/run.zarr", r"environment \(.*AZURE_STORAGE_ACCOUNT_NAME"),
    ],
)
def test_places_that_cannot_hold_a_store_are_refused_by_name(url: str, words: str) -> None:
    """Before anything is asked for over the network."""
    pytest.importorskip("obstore", reason="obstore is not installed")
    with pytest.raises(stores.StoreError, match=words):
        stores.create(url, classes=["a"], samples=2, provenance={})


@pytest.mark.parametrize(
    ("kind", "words"), [("S3Store", "AWS_"), ("GCSStore", "GOOGLE_"), ("AzureStore", "AZURE_STORAGE_")]
)
def test_a_service_is_told_what_it_takes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, kind: str, words: str
) -> None:
    exceptions = pytest.importorskip("obstore.exceptions", reason="obstore is not installed")

    def refused(store: object, key: str) -> None:
        raise exceptions.UnauthenticatedError("no token")

    monkeypatch.setattr("obstore.get", refused)
    floor = ObjectFloor(type(kind, (), {})(), "url")
    with pytest.raises(stores.StoreError, match=rf"no token\..*credentials in the environment \({words}"):
        floor.read("zarr.json")
