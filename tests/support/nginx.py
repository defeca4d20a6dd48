"""A real nginx with nchan, as on Unraid: publishers on a unix socket, pages on another."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_MODULE = "/usr/lib/nginx/modules/ngx_nchan_module.so"
_CONFIGURATION = """\
load_module {module};
daemon off;
user root;
worker_processes 1;
pid {root}/nginx.pid;
error_log {root}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {root}/body;
  proxy_temp_path {root}/proxy;
  fastcgi_temp_path {root}/fastcgi;
  uwsgi_temp_path {root}/uwsgi;
  scgi_temp_path {root}/scgi;
  server {{
    listen unix:{root}/nginx.socket;
    location ~ /pub/(.*)$ {{
      nchan_publisher;
      nchan_channel_id "$1";
      nchan_message_buffer_length $arg_buffer_length;
      nchan_message_timeout 0;
    }}
  }}
  server {{
    listen unix:{root}/pages.socket;
    location ~ /sub/(.*)$ {{
      nchan_subscriber;
      nchan_channel_id "$1";
      nchan_subscriber_first_message oldest;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Nginx:
    """One that runs."""

    publishers: Path
    """The socket that programs publish to."""
    pages: Path
    """The socket that pages subscribe at."""


@contextmanager
def nginx(root: Path) -> Iterator[Nginx]:
    """Run nginx for the time of the context; ``root`` is a short path."""
    configuration = root / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(module=_MODULE, root=root))
    with (root / "stderr.log").open("wb") as log:
        process = subprocess.Popen(
            ["/usr/sbin/nginx", "-c", str(configuration), "-p", str(root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 20
        while not (root / "pages.socket").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((root / "stderr.log").read_text())
            time.sleep(0.02)
        yield Nginx(root / "nginx.socket", root / "pages.socket")
    finally:
        process.terminate()
        process.wait(20)
