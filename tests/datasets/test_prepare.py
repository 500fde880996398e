"""Preparing data sets: one download for many processes, kills survived, damage found."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datasets.preparing import prepare
from datasets.preparing.sets import ENTRIES
from datasets.preparing.stamps import STAMP, check_tree, make_stamp, read_stamp
from randomix.errors import DataError, StorageError
from scripts import prepare_data
from tests.datasets.file_server import Served, serving
from tests.datasets.prepare_driver import toy_entry
from tests.datasets.toy_archives import CIFAR, cifar, contents, md5, tar

DRIVER = Path(__file__).with_name("prepare_driver.py")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, no_proxy):
    monkeypatch.delenv("RANDOMIX_DATA", raising=False)


def start(root, address, digests, *arguments, delay=0.0, name="cifar10"):
    """A process of the command line."""
    command = [
        sys.executable,
        str(DRIVER),
        str(delay),
        json.dumps({name: digests}),
        name,
        "--root",
        str(root),
        "--url",
        address,
        *arguments,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, process):
    deadline = time.monotonic() + 30
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.005)


def whole(root):
    folder = root / "cifar-10-batches-py"
    assert contents(folder) == {Path(name).name: data for name, data in CIFAR.items()}
    assert check_tree(folder, read_stamp(folder)) is None
    assert not list(root.rglob("*.part*")) and not list(root.rglob("*.tmp.*"))


def test_four_processes_one_download(tmp_path):
    data = tar(CIFAR)
    with serving({"/cifar-10-python.tar.gz": Served(data, pause=0.05)}) as (address, server):
        processes = [start(tmp_path, address, {"cifar-10-python.tar.gz": md5(data)}, delay=0.02) for _ in range(4)]
        outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert len(server.log) == 1 and server.log[0][1] is None
    assert sum("another process prepares it; waiting" in err for _, err in outputs) == 3
    assert sum("unpacking" in err for _, err in outputs) == 1
    assert all(
        out.startswith(f"cifar10: ready in {tmp_path}/cifar-10-batches-py (8 files, 468.8 KiB)") for out, _ in outputs
    )
    whole(tmp_path)


def test_killed_in_the_middle_of_a_download(tmp_path):
    data = tar(CIFAR)
    digests, part = {"cifar-10-python.tar.gz": md5(data)}, tmp_path / "cifar-10-python.tar.gz.part"
    with serving({"/cifar-10-python.tar.gz": Served(data, pause=0.1)}) as (address, server):
        process = start(tmp_path, address, digests)
        wait_for(lambda: part.exists() and part.stat().st_size > 150_000, process)
        process.kill()
        process.communicate()
        there = part.stat().st_size
        assert 150_000 < there < len(data) and not (tmp_path / "cifar-10-batches-py").exists()
        server.files["/cifar-10-python.tar.gz"].pause = 0
        again = start(tmp_path, address, digests)
        assert "ready" in again.communicate(timeout=30)[0] and again.returncode == 0
    assert [asked for _, asked, _ in server.log] == [None, f"bytes={there}-"]
    whole(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle_of_unpacking(tmp_path, number):
    data = tar(CIFAR)
    digests, part = {"cifar-10-python.tar.gz": md5(data)}, tmp_path / "cifar-10-batches-py.part"
    with serving({"/cifar-10-python.tar.gz": data}) as (address, server):
        process = start(tmp_path, address, digests, delay=-30.0)
        wait_for(lambda: part.exists() and len(list(part.iterdir())) >= 3, process)
        process.send_signal(number)
        err = process.communicate(timeout=30)[1]
        if number == signal.SIGKILL:
            assert process.returncode == -9 and part.exists()
        else:
            assert process.returncode == 75 and err.splitlines()[-1] == "interrupted; the same command continues"
            assert not part.exists()
        assert not (tmp_path / "cifar-10-batches-py").exists()
        assert start(tmp_path, address, digests).wait(30) == 0
    assert len(server.log) == 1
    whole(tmp_path)


def test_again_it_is_there_and_what_is_damaged_is_mended(tmp_path):
    data = tar(CIFAR)
    entry, said = cifar(data), []
    folder = tmp_path / "cifar-10-batches-py"
    with serving({"/cifar-10-python.tar.gz": data}) as (address, server):

        def run(**options):
            return prepare.run(entry, tmp_path, url=address, say=said.append, **options)

        with pytest.raises(
            DataError, match=r"cifar-10-batches-py: not there; run: python scripts/prepare_data.py cifar10"
        ):
            run(verify_only=True)
        assert not list(tmp_path.iterdir())
        report = run()
        assert (report.files, report.bytes, report.folder) == (8, 480_000, folder)
        assert str(report).endswith(f"{tmp_path}/cifar-10-python.tar.gz ({len(data) / 2**10:.1f} KiB) can be deleted")
        first = folder.stat().st_mtime_ns
        said.clear()
        assert run() == report == run(verify_only=True) and folder.stat().st_mtime_ns == first and not said
        (folder / "test_batch").write_bytes(b"cut")
        with pytest.raises(
            DataError, match=r"expected 8 files of 480000 bytes in its top level, found 8 of 420003 bytes"
        ):
            run(verify_only=True)
        assert run() == report
        whole(tmp_path)
        (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"<html>")
        with pytest.raises(DataError, match=r"expected md5 .*the unpacked files are right"):
            run(verify_only=True)
        shutil.rmtree(folder)
        assert run() == report and any("moved to cifar-10-python.tar.gz.old-1" in line for line in said)
        assert (tmp_path / "cifar-10-python.tar.gz.old-1").read_bytes() == b"<html>"
        assert run(keep_archive=False).kept == () and len(server.log) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".cifar10.prepare.lock",
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz.old-1",
    ]
    assert run(verify_only=True).files == 8  # without the archive or a server


def test_a_folder_of_somebody_is_kept(tmp_path):
    data, said = tar(CIFAR), []
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "mine").write_text("keep")
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(data)
    prepare.run(cifar(data), tmp_path, say=said.append)
    assert (tmp_path / "cifar-10-batches-py.old-1" / "mine").read_text() == "keep"
    assert any("was not made by this program; moved to cifar-10-batches-py.old-1" in line for line in said)
    whole(tmp_path)


def test_an_archive_from_elsewhere_and_a_link_to_another_disk(tmp_path):
    data = tar(CIFAR)
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "cifar-10-python.tar.gz").write_bytes(data)
    (tmp_path / "big").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "cifar-10-batches-py").symlink_to(tmp_path / "big")
    url = (tmp_path / "mirror").as_uri()
    prepare.run(cifar(data), tmp_path / "root", url=url, keep_archive=False, say=lambda line: None)
    assert (tmp_path / "root" / "cifar-10-batches-py").is_symlink() and read_stamp(tmp_path / "big").files == 8


def refused(root, data, served=None, entry=None):
    """The message of a set that cannot be prepared; nothing has the final name."""
    entry = entry or cifar(data)
    files = {"/cifar-10-python.tar.gz": data if served is None else served}
    with serving(files) as (address, _), pytest.raises((DataError, StorageError)) as caught:
        prepare.run(entry, root, url=address, say=lambda line: None)
    assert not (root / "cifar-10-batches-py").exists() and "\n" not in str(caught.value)
    return str(caught.value)


def test_what_a_server_may_give_instead(tmp_path):
    data = tar(CIFAR)
    assert f"expected md5 {md5(data)}, found" in refused(tmp_path, data, data[:-10])
    assert 'starts with "<!DOCTYPE html>' in refused(tmp_path, data, b"<!DOCTYPE html><p>503")
    assert "HTTP 404 Not Found" in refused(tmp_path, data, Served(data, statuses=[404]))
    assert [path.name for path in tmp_path.iterdir()] == [".cifar10.prepare.lock"]


def test_archives_with_the_right_checksum_and_the_wrong_content(tmp_path):
    """The second line of defence: what it would take if a published checksum were that of a malicious file."""
    outside = tar(CIFAR | {"cifar-10-batches-py/../../escape": b"x"})
    assert "leads out of the folder" in refused(tmp_path / "root", outside)
    beside = tar(CIFAR | {"other/x": b"x"})
    assert "it is not in the archive's folder cifar-10-batches-py/" in refused(tmp_path / "root", beside)
    fewer = tar({name: data for name, data in CIFAR.items() if "batch_3" not in name})
    assert "expected the file data_batch_3, found none" in refused(tmp_path / "root", fewer)
    assert "starts with" in refused(tmp_path / "root", b"<html>not found</html>")
    assert "damage" in refused(tmp_path / "root", tar(CIFAR)[:-5000])
    assert "at most 100 members" in refused(
        tmp_path / "root", tar(CIFAR | {f"cifar-10-batches-py/{n}": b"" for n in range(99)})
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root"]


def test_full_disk_and_folder_that_cannot_be_written(tmp_path, monkeypatch):
    data = tar(CIFAR)
    entry = toy_entry(ENTRIES["cifar10"], {"cifar-10-python.tar.gz": md5(data)}, unpacked=187_000_000)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100_000_000))
    assert "need 178.3 MiB, have 95.4 MiB" in refused(tmp_path, data, entry=entry)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        prepare.run(entry, tmp_path / "file" / "data")


def test_stamps_say_what_differs(tmp_path):
    for name in ("a/1", "a/2", "b/c/3", "top"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    stamp = make_stamp(tmp_path, "x", {"x.zip": "md5:0"})
    assert (stamp.files, stamp.bytes, stamp.folders) == (4, 14, {"a": [2, 6], "b": [1, 5], ".": [1, 3]})
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "ours").write_text("")
    assert check_tree(tmp_path, stamp) is None
    (tmp_path / "a" / "1").rename(tmp_path / "a" / "4")
    assert check_tree(tmp_path, stamp) == "files were renamed or changed their sizes"
    (tmp_path / "a" / "4").unlink()
    assert check_tree(tmp_path, stamp) == "expected 2 files of 6 bytes in a/, found 1 of 3 bytes"
    (tmp_path / "a" / "1").symlink_to(tmp_path / "top")
    assert check_tree(tmp_path, stamp) is not None
    for text in ("", "[]", "{}", '{"name": 1}', json.dumps(stamp.__dict__ | {"folders": {"a": 1}}), "\xff"):
        (tmp_path / STAMP).write_text(text)
        assert read_stamp(tmp_path) is None
    assert read_stamp(tmp_path / "nowhere") is None and check_tree(tmp_path / "nowhere", stamp).endswith("directory)")


def test_command_line(tmp_path, capsys, monkeypatch):
    data = tar(CIFAR)
    monkeypatch.setitem(ENTRIES, "cifar10", cifar(data))
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(data)
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    assert prepare_data.main(["cifar10", "--root", str(tmp_path), "--no-keep-archive"]) == 0
    out = capsys.readouterr().out
    assert out == f"cifar10: ready in {tmp_path}/cifar-10-batches-py (8 files, 468.8 KiB)\n"
    assert (
        prepare_data.main(["imagenet", "cifar10", "--root", str(tmp_path), "--verify"]) == 2
    )  # the second has its turn
    out, err = capsys.readouterr()
    assert out.startswith("cifar10: ready") and err.startswith("error: ") and err.count("\n") == 1
    assert prepare_data.main(["cifar10", "--root", str(tmp_path / "no"), "--url", "https://u:p@[bad/?q=secret"]) == 2
    err = capsys.readouterr().err
    assert "secret" not in err and "Traceback" not in err
    assert prepare_data.main(["--list"]) == 0 and capsys.readouterr().out.count("\n") == len(ENTRIES)
    for arguments, message in (([], "no name"), (["cifar"], "cifar: expected data sets of cifar10, cifar100")):
        with pytest.raises(SystemExit) as caught:
            prepare_data.main(arguments)
        assert caught.value.code == 2 and message in capsys.readouterr().err


def test_the_command_line_loads_no_torch():
    root = DRIVER.parents[2]
    modules = "('torch', 'scipy', 'rich')"
    code = (
        "import sys; sys.path.insert(0, '.'); from scripts import prepare_data; import datasets.preparing.imagenet;"
        f"prepare_data.main(['--list']); print([name for name in {modules} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
