import time
from pathlib import Path
from tests.support.faulty import Fault
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.world import World

def test_smoke(libvirtd: PrivateLibvirtd, tmp_path: Path) -> None:
    t=time.time()
    def lap(s):
        nonlocal t
        print(s, round(time.time()-t,2)); t=time.time()
    w=World(libvirtd,tmp_path/"w"); lap("world")
    w.backup(); lap("full")
    w.change(); lap("change")
    w.backup(); lap("inc")
    w.change()
    c=w.copies(); lap("copies")
    w.die(Fault("die","progress","",3)); lap("die")
    w.assert_lists(list(w.references)); lap("lists")
    w.assert_vm_unharmed(); w.change(); lap("change")
    m=w.backup(); lap("inc"); print([d["method"] for d in m["disks"]], m["parent"])
    w.assert_lists(list(w.references)); lap("lists")
    w.assert_restores(list(w.references)[-1]); lap("restores")
    w.assert_tidy(); lap("tidy")
    w.close()
