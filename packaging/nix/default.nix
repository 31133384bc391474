# nix-build -E 'with import <nixpkgs> {}; callPackage ./packaging/nix { }'
{ lib, stdenv, pkgsStatic, check, pkg-config }:

let
  # Tunnels copy this one to a host of the same type that has no relay.
  copied = pkgsStatic.callPackage
    ({ stdenv }: stdenv.mkDerivation {
      pname = "relay-static";
      version = "1.0";
      src = ../..;
      buildPhase = "make static STATIC_CC=$CC";
      installPhase = ''
        mkdir -p $out
        cp relay-[A-Z]*-* $out
      '';
    })
    { };
in
stdenv.mkDerivation {
  pname = "relay";
  version = "1.0";
  src = ../..;

  buildFlags = [ "relay" "completion/_relay" "completion/relay.bash" ];
  postBuild = lib.optionalString stdenv.hostPlatform.isLinux "cp ${copied}/* .";
  installFlags = [ "PREFIX=$(out)" ];
  doCheck = true;
  nativeCheckInputs = [ check pkg-config ];
  checkTarget = "units";

  meta = {
    description = "Tunnels over ssh where the server forbids forwarding";
    license = lib.licenses.isc;
    platforms = lib.platforms.unix;
    mainProgram = "relay";
  };
}
