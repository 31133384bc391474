class Relay < Formula
  desc "Tunnels over ssh where the server forbids forwarding"
  homepage "https://packages.invalid/relay"
  url "https://packages.invalid/relay-1.0.tar.gz"
  sha256 "0000000000000000000000000000000000000000000000000000000000000000"
  license "ISC"

  def install
    system "make"
    system "make", "install", "PREFIX=#{prefix}"
  end

  test do
    (testpath/"page").write "a page"
    assert_equal "a page", shell_output("#{bin}/relay - -- cat page </dev/null")
    assert_match version.to_s, shell_output("#{bin}/relay -V")
  end
end
