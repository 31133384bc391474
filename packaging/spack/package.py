# SPDX-License-Identifier: ISC

from spack.package import *


class Relay(MakefilePackage):
    """Tunnels over ssh where the server forbids forwarding.  relay joins two
    ends: a TCP port, a Unix socket, stdin and stdout, or a command."""

    homepage = "https://packages.invalid/relay"
    url = "https://packages.invalid/relay-0.2.tar.gz"

    license("ISC")

    version("0.2", sha256="0" * 64)

    variant("static", default=True, description="Build the static relay that tunnels copy")

    depends_on("c", type="build")
    depends_on("musl", type="build", when="+static platform=linux")

    def build(self, spec, prefix):
        if spec.satisfies("+static platform=linux"):
            make()
        else:
            make("relay", "completion/_relay", "completion/relay.bash")

    def install(self, spec, prefix):
        make("install", "PREFIX=" + prefix)
