// The neutral server of the comparison: RFC 6455 and just enough of Phoenix Channels V2, on one epoll thread.
//
//     server serve PAYLOADS [--one-frame-per-write] [--route]     prints its port; ends with its standard input
//     server load PORT pipe|cast|flood COUNT SIZE         the raw client that measures this server's headroom
//
// PAYLOADS is a folder of `<size>.json`, the payload of one pushed message each. What a client may push:
//     phx_join, phx_leave, heartbeat, message    answered with ok
//     cast                                       counted, never answered
//     count                                      answered with how many casts this socket has sent
//     flood {"count": N, "size": S}              answered, then N messages of S follow
//     message, with --route                      answered, then pushed to whoever has joined as the first DID of its "to"
//     restart {"down_ms": D}                     all sockets and the listener are closed; it listens again after D ms
// A client's frame is not checked beyond what finding its end and its header takes: this is a measuring tool.

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

constexpr size_t kRead = 256 * 1024;   // bytes of one read
constexpr size_t kWrite = 256 * 1024;  // bytes of one write of a flood, where frames are batched
constexpr size_t kHeader = 2048;       // bytes of a payload that are unmasked: join_ref, ref, topic, event and counts

[[noreturn]] void fail(const char *what) {
  std::fprintf(stderr, "server: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

int64_t now_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
}

// --- SHA-1 (FIPS 180-4) and base64, for Sec-WebSocket-Accept alone --------------------------------------------------

std::string sha1(std::string text) {
  uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
  const uint64_t bits = text.size() * 8;
  text += static_cast<char>(0x80);
  while (text.size() % 64 != 56) text += '\0';
  for (int shift = 56; shift >= 0; shift -= 8) text += static_cast<char>(bits >> shift);
  const auto roll = [](uint32_t value, int by) { return (value << by) | (value >> (32 - by)); };
  for (size_t block = 0; block < text.size(); block += 64) {
    uint32_t w[80];
    for (int i = 0; i < 16; i++) {
      const auto *p = reinterpret_cast<const unsigned char *>(text.data()) + block + 4 * i;
      w[i] = uint32_t{p[0]} << 24 | uint32_t{p[1]} << 16 | uint32_t{p[2]} << 8 | p[3];
    }
    for (int i = 16; i < 80; i++) w[i] = roll(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int i = 0; i < 80; i++) {
      const uint32_t f = i < 20   ? ((b & c) | (~b & d)) + 0x5A827999
                         : i < 40 ? (b ^ c ^ d) + 0x6ED9EBA1
                         : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8F1BBCDC
                                  : (b ^ c ^ d) + 0xCA62C1D6;
      const uint32_t next = roll(a, 5) + f + e + w[i];
      e = d, d = c, c = roll(b, 30), b = a, a = next;
    }
    h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
  }
  std::string digest;
  for (uint32_t word : h)
    for (int shift = 24; shift >= 0; shift -= 8) digest += static_cast<char>(word >> shift);
  return digest;
}

std::string base64(const std::string &data) {
  static const char *const kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t i = 0; i < data.size(); i += 3) {
    uint32_t group = 0;
    for (size_t k = 0; k < 3; k++) group = group << 8 | (i + k < data.size() ? (unsigned char)data[i + k] : 0);
    for (size_t k = 0; k < 4; k++) text += i + k <= data.size() ? kAlphabet[group >> (18 - 6 * k) & 63] : '=';
  }
  return text;
}

// --- frames ---------------------------------------------------------------------------------------------------------

std::string head(int opcode, size_t size, bool masked) {
  std::string out(1, static_cast<char>(0x80 | opcode));
  const int mask = masked ? 0x80 : 0;
  if (size < 126) {
    out += static_cast<char>(mask | size);
  } else if (size < 65536) {
    out += static_cast<char>(mask | 126);
    out += static_cast<char>(size >> 8);
    out += static_cast<char>(size);
  } else {
    out += static_cast<char>(mask | 127);
    for (int shift = 56; shift >= 0; shift -= 8) out += static_cast<char>(static_cast<uint64_t>(size) >> shift);
  }
  if (masked) out.append(4, '\0');  // the zero key leaves the payload as it is
  return out;
}

std::string frame(const std::string &payload, int opcode = 1, bool masked = false) {
  return head(opcode, payload.size(), masked) + payload;
}

// The first four elements of a V2 frame, each as it stands in the JSON, quotes included.
struct Fields {
  std::string_view join_ref, ref, topic, event, rest;
};

bool parse(std::string_view text, Fields &fields) {
  size_t at = text.find('[');
  if (at == std::string_view::npos) return false;
  at++;
  std::string_view *const out[] = {&fields.join_ref, &fields.ref, &fields.topic, &fields.event};
  for (auto *field : out) {
    while (at < text.size() && (text[at] == ' ' || text[at] == ',')) at++;
    const size_t start = at;
    if (at < text.size() && text[at] == '"') {
      for (at++; at < text.size() && text[at] != '"'; at++)
        if (text[at] == '\\') at++;
      at++;
    } else {
      while (at < text.size() && text[at] != ',') at++;
    }
    if (at >= text.size()) return false;
    *field = text.substr(start, at - start);
  }
  fields.rest = text.substr(at);
  return true;
}

int64_t number(std::string_view text, const char *key) {
  const std::string quoted = std::string("\"") + key + "\"";
  size_t at = text.find(quoted);
  if (at == std::string_view::npos) return 0;
  at = text.find_first_of("0123456789", at + quoted.size());
  int64_t value = 0;
  for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; at++) value = value * 10 + (text[at] - '0');
  return value;
}

std::string reply(const Fields &to, const std::string &response) {
  std::string text = "[";
  text.append(to.join_ref).append(",").append(to.ref).append(",").append(to.topic);
  return frame(text + ",\"phx_reply\",{\"status\":\"ok\",\"response\":" + response + "}]");
}

// --- the server -----------------------------------------------------------------------------------------------------

// What is to be written: `bytes` `times` over, `batch` copies of which stand in it already.
struct Segment {
  std::string bytes;
  size_t unit = 0;  // bytes of one frame
  int64_t left = 0; // bytes still to write
  size_t at = 0;
};

struct Socket {
  int fd = -1;
  bool open = false;  // upgraded
  bool writable = true;
  bool doomed = false;
  std::string in;
  size_t done = 0;  // bytes of `in` that are dealt with
  std::deque<Segment> out;
  std::string join_ref = "null";
  std::string did;
  int64_t casts = 0;
};

class Server {
 public:
  Server(const std::string &folder, bool one_by_one, bool routes)
      : folder_(folder), one_by_one_(one_by_one), routes_(routes) {
    epoll_ = epoll_create1(0);
    if (epoll_ < 0) fail("epoll_create1");
    watch(STDIN_FILENO, EPOLLIN, EPOLL_CTL_ADD);
    listen_on(0);
    std::printf("%d\n", port_);
    std::fflush(stdout);
  }

  void run() {
    std::vector<epoll_event> events(512);
    std::vector<Socket *> closing;
    while (true) {
      const int wait = listener_ >= 0 ? -1 : static_cast<int>(std::max<int64_t>(0, listen_at_ - now_ms()));
      const int count = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), wait);
      if (count < 0 && errno != EINTR) fail("epoll_wait");
      for (int i = 0; i < count; i++) {
        const int fd = events[i].data.fd;
        if (fd == STDIN_FILENO) {
          char drained[64];
          if (read(fd, drained, sizeof drained) <= 0) return;
        } else if (fd == listener_) {
          accept_all();
        } else if (const auto found = sockets_.find(fd); found != sockets_.end()) {
          Socket &socket = *found->second;
          if (events[i].events & EPOLLOUT) socket.writable = true;
          if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(socket);
          if (!socket.doomed) flush(socket);
          if (socket.doomed) drop(socket);
          for (const int other : routed_)
            if (const auto taker = sockets_.find(other); taker != sockets_.end()) flush(*taker->second);
          routed_.clear();
        }
      }
      if (restart_) {
        restart_ = false;
        close(listener_);
        listener_ = -1;
        while (!sockets_.empty()) drop(*sockets_.begin()->second);
      }
      if (listener_ < 0 && now_ms() >= listen_at_) listen_on(port_);
    }
  }

 private:
  void watch(int fd, uint32_t what, int how) {
    epoll_event event{};
    event.events = what;
    event.data.fd = fd;
    if (epoll_ctl(epoll_, how, fd, &event) < 0) fail("epoll_ctl");
  }

  void listen_on(int port) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int on = 1;
    setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port));
    if (bind(listener_, reinterpret_cast<sockaddr *>(&address), sizeof address) < 0) fail("bind");
    if (listen(listener_, 4096) < 0) fail("listen");
    socklen_t size = sizeof address;
    getsockname(listener_, reinterpret_cast<sockaddr *>(&address), &size);
    port_ = ntohs(address.sin_port);
    watch(listener_, EPOLLIN, EPOLL_CTL_ADD);
  }

  void accept_all() {
    while (true) {
      const int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) {
        if (errno == EAGAIN || errno == ECONNABORTED) return;
        fail("accept4");
      }
      const int on = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      auto socket = std::make_unique<Socket>();
      socket->fd = fd;
      sockets_[fd] = std::move(socket);
      watch(fd, EPOLLIN, EPOLL_CTL_ADD);
    }
  }

  void drop(Socket &socket) {
    const int fd = socket.fd;
    if (const auto joined = joined_.find(socket.did); joined != joined_.end() && joined->second == fd)
      joined_.erase(joined);
    close(fd);
    sockets_.erase(fd);
  }

  void receive(Socket &socket) {
    // Two reads at most: what a client sends in one go is answered in one go, and no client starves another.
    for (int turn = 0; turn < 2; turn++) {
      const ssize_t size = read(socket.fd, buffer_.data(), buffer_.size());
      if (size == 0 || (size < 0 && errno != EAGAIN && errno != EINTR)) {
        socket.doomed = true;
        return;
      }
      if (size < 0) break;
      socket.in.append(buffer_.data(), static_cast<size_t>(size));
      if (static_cast<size_t>(size) < buffer_.size()) break;
    }
    if (!socket.open && !upgrade(socket)) return;
    while (!socket.doomed && take(socket)) {
    }
    if (socket.done == socket.in.size()) {
      socket.in.clear();
      socket.done = 0;
      if (socket.in.capacity() > 4 * kRead) socket.in.shrink_to_fit();
    } else if (socket.done > kRead) {
      socket.in.erase(0, socket.done);
      socket.done = 0;
    }
  }

  bool upgrade(Socket &socket) {
    const size_t end = socket.in.find("\r\n\r\n");
    if (end == std::string::npos) return false;
    std::string lower = socket.in.substr(0, end + 2);
    std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
    const size_t at = lower.find("sec-websocket-key:");
    if (at == std::string::npos) {
      socket.doomed = true;
      return false;
    }
    const size_t line = lower.find("\r\n", at);
    std::string key = socket.in.substr(at + 18, line - at - 18);
    key.erase(0, key.find_first_not_of(' '));
    key.erase(key.find_last_not_of(' ') + 1);
    const std::string accept = base64(sha1(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    send(socket, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Accept: " + accept + "\r\n\r\n");
    socket.done = end + 4;
    socket.open = true;
    return true;
  }

  // Deal with one frame, if there is a whole one.
  bool take(Socket &socket) {
    const auto *data = reinterpret_cast<const unsigned char *>(socket.in.data()) + socket.done;
    const size_t have = socket.in.size() - socket.done;
    if (have < 2) return false;
    const int opcode = data[0] & 15;
    uint64_t size = data[1] & 127;
    size_t at = 2;
    if (size == 126) {
      if (have < 4) return false;
      size = uint64_t{data[2]} << 8 | data[3];
      at = 4;
    } else if (size == 127) {
      if (have < 10) return false;
      size = 0;
      for (int i = 2; i < 10; i++) size = size << 8 | data[i];
      at = 10;
    }
    const bool masked = data[1] & 128;
    const unsigned char *mask = data + at;
    if (masked) at += 4;
    if (have < at + size) return false;
    socket.done += at + size;
    const size_t shown = std::min<size_t>(size, kHeader);
    scratch_.assign(reinterpret_cast<const char *>(data) + at, shown);
    if (masked)
      for (size_t i = 0; i < shown; i++) scratch_[i] = static_cast<char>(scratch_[i] ^ mask[i & 3]);
    if (opcode == 1) {
      message(socket, scratch_);
    } else if (opcode == 8) {
      send(socket, frame(scratch_.substr(0, 2), 8));
      flush(socket);
      socket.doomed = true;
    } else if (opcode == 9) {
      send(socket, frame(scratch_, 10));
    }
    return true;
  }

  void message(Socket &socket, std::string_view text) {
    Fields fields;
    if (!parse(text, fields)) {
      std::fprintf(stderr, "server: no frame: %.*s\n", static_cast<int>(std::min<size_t>(text.size(), 80)), text.data());
      socket.doomed = true;
      return;
    }
    if (fields.event == "\"message\"" || fields.event == "\"heartbeat\"") {
      send(socket, reply(fields, "{}"));
      if (routes_ && fields.event == "\"message\"") route(fields);
    } else if (fields.event == "\"cast\"") {
      socket.casts++;
    } else if (fields.event == "\"count\"") {
      send(socket, reply(fields, "{\"casts\":" + std::to_string(socket.casts) + "}"));
    } else if (fields.event == "\"phx_join\"") {
      socket.join_ref = fields.join_ref;
      const std::string topic(fields.topic.substr(1, fields.topic.size() - 2));
      const std::string did = topic.substr(topic.find(':') + 1);
      socket.did = did;
      joined_[did] = socket.fd;
      send(socket, reply(fields, "{\"did\":\"" + did + "\",\"capabilities\":[\"reply_protocol/1\"]}"));
    } else if (fields.event == "\"phx_leave\"") {
      send(socket, reply(fields, "{}"));
    } else if (fields.event == "\"flood\"") {
      send(socket, reply(fields, "{}"));
      flood(socket, fields, number(fields.rest, "count"), number(fields.rest, "size"));
    } else if (fields.event == "\"restart\"") {
      restart_ = true;
      listen_at_ = now_ms() + number(fields.rest, "down_ms");
    }
  }

  // Push a message to the socket of its first recipient; its text, as it came, is the plaintext.
  void route(const Fields &fields) {
    const size_t to = fields.rest.find("\"to\"");
    const size_t open = to == std::string_view::npos ? to : fields.rest.find('"', fields.rest.find('[', to));
    const size_t close = open == std::string_view::npos ? open : fields.rest.find('"', open + 1);
    if (close == std::string_view::npos) return;
    const std::string did(fields.rest.substr(open + 1, close - open - 1));
    const auto found = joined_.find(did);
    const size_t begin = fields.rest.find('{'), end = fields.rest.rfind('}');
    if (found == joined_.end() || end == std::string_view::npos) {
      std::fprintf(stderr, "server: nobody to route to, or more than %zu bytes: %s\n", kHeader, did.c_str());
      std::exit(1);
    }
    Socket &taker = *sockets_.at(found->second);
    std::string text = "[" + taker.join_ref + ",null,\"plugins:" + did + "\",\"message\",{\"plaintext\":";
    text.append(fields.rest.substr(begin, end - begin + 1));
    text += ",\"context\":{\"recipient\":\"" + did + "\",\"authorized\":true,\"sender_credentials\":[]}}]";
    send(taker, frame(text));
    routed_.push_back(taker.fd);
  }

  void flood(Socket &socket, const Fields &fields, int64_t count, int64_t size) {
    if (count < 1) return;
    std::string &payload = payloads_[size];
    if (payload.empty()) {
      std::ifstream file(folder_ + "/" + std::to_string(size) + ".json", std::ios::binary);
      std::ostringstream text;
      text << file.rdbuf();
      payload = text.str();
      if (payload.empty()) {
        std::fprintf(stderr, "server: no payload of %ld bytes\n", static_cast<long>(size));
        std::exit(1);
      }
    }
    std::string text = "[" + socket.join_ref + ",null,";
    text.append(fields.topic);
    const std::string one = frame(text + ",\"message\"," + payload + "]");
    Segment segment;
    segment.unit = one.size();
    const size_t copies = std::min<size_t>(static_cast<size_t>(count), std::max<size_t>(1, kWrite / one.size()));
    for (size_t i = 0; i < copies; i++) segment.bytes += one;
    segment.left = count * static_cast<int64_t>(one.size());
    socket.out.push_back(std::move(segment));
  }

  void send(Socket &socket, const std::string &bytes) {
    if (socket.out.empty() || socket.out.back().unit != 0) {
      socket.out.emplace_back();
    }
    Segment &last = socket.out.back();
    last.bytes += bytes;
    last.left += static_cast<int64_t>(bytes.size());
    if (one_by_one_) flush(socket);
  }

  void flush(Socket &socket) {
    int64_t budget = 64;  // writes in a row before the others have their turn
    while (socket.writable && !socket.out.empty() && budget-- > 0) {
      Segment &segment = socket.out.front();
      size_t size = static_cast<size_t>(std::min<int64_t>(segment.left, segment.bytes.size() - segment.at));
      if (one_by_one_ && segment.unit != 0) size = std::min(size, segment.unit - segment.at % segment.unit);
      const ssize_t written = write(socket.fd, segment.bytes.data() + segment.at, size);
      if (written < 0) {
        if (errno == EAGAIN) {
          socket.writable = false;
        } else if (errno != EINTR) {
          socket.doomed = true;
          return;
        }
      } else {
        segment.left -= written;
        segment.at += static_cast<size_t>(written);
        if (segment.left == 0) {
          socket.out.pop_front();
        } else if (segment.at == segment.bytes.size()) {
          segment.at = 0;
        }
      }
    }
    watch(socket.fd, socket.out.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
  }

  std::string folder_;
  bool one_by_one_;
  bool routes_;
  std::vector<int> routed_;  // sockets that others have written to in this turn
  std::unordered_map<std::string, int> joined_;  // DIDs and their sockets
  int epoll_ = -1;
  int listener_ = -1;
  int port_ = 0;
  bool restart_ = false;
  int64_t listen_at_ = 0;
  std::unordered_map<int, std::unique_ptr<Socket>> sockets_;
  std::unordered_map<int64_t, std::string> payloads_;
  std::string buffer_ = std::string(kRead, '\0');
  std::string scratch_;
};

// --- the raw client -------------------------------------------------------------------------------------------------

class Load {
 public:
  explicit Load(int port) {
    fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port));
    if (connect(fd_, reinterpret_cast<sockaddr *>(&address), sizeof address) < 0) fail("connect");
    const int on = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    put("GET /websocket?vsn=2.0.0 HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    std::string answer;
    while (answer.find("\r\n\r\n") == std::string::npos) answer += get();
    if (answer.find("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") == std::string::npos) {  // RFC 6455 section 1.3
      std::fprintf(stderr, "load: the upgrade was answered with\n%s\n", answer.c_str());
      std::exit(1);
    }
    put(push("phx_join", "{}"));
    get();
  }

  static std::string push(const std::string &event, const std::string &payload) {
    return frame("[\"1\",\"0000001\",\"plugins:load\",\"" + event + "\"," + payload + "]", 1, true);
  }

  // Round trips with 100 in flight; all replies have one length.
  int64_t pipe(int64_t count, const std::string &payload) {
    const std::string one = push("message", payload);
    std::string window;
    for (int i = 0; i < 100; i++) window += one;
    const size_t size = frame("[\"1\",\"0000001\",\"plugins:load\",\"phx_reply\",{\"status\":\"ok\",\"response\":{}}]").size();
    put(window);
    int64_t got = 0, rest = 0;
    while (got < count) {
      rest += static_cast<int64_t>(get().size());
      const int64_t whole = rest / static_cast<int64_t>(size);
      rest -= whole * static_cast<int64_t>(size);
      got += whole;
      if (whole) put(window.substr(0, std::min<size_t>(static_cast<size_t>(whole), 100) * one.size()));
    }
    return got;
  }

  int64_t cast(int64_t count, const std::string &payload) {
    const std::string one = push("cast", payload);
    std::string window;
    for (int i = 0; i < 100; i++) window += one;
    int64_t sent = 0;
    for (; sent < count; sent += 100) put(window);
    put(push("count", "{}"));
    get();
    return sent;
  }

  int64_t flood(int64_t count, int64_t size, size_t payload) {
    put(push("flood", "{\"count\":" + std::to_string(count) + ",\"size\":" + std::to_string(size) + "}"));
    const std::string reply = "[\"1\",\"0000001\",\"plugins:load\",\"phx_reply\",{\"status\":\"ok\",\"response\":{}}]";
    const size_t text = std::strlen("[\"1\",null,\"plugins:load\",\"message\",]") + payload;
    int64_t left = static_cast<int64_t>(frame(reply).size()) + count * static_cast<int64_t>(head(1, text, false).size() + text);
    while (left > 0) left -= static_cast<int64_t>(get().size());
    return count;
  }

 private:
  void put(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t written = write(fd_, bytes.data(), bytes.size());
      if (written < 0) fail("write");
      bytes.remove_prefix(static_cast<size_t>(written));
    }
  }

  std::string_view get() {
    const ssize_t size = read(fd_, buffer_.data(), buffer_.size());
    if (size <= 0) fail("read");
    return {buffer_.data(), static_cast<size_t>(size)};
  }

  int fd_;
  std::string buffer_ = std::string(kRead, '\0');
};

int load(int port, const std::string &work, int64_t count, int64_t size) {
  // The payload comes by standard input, so that server and clients measure the same one.
  std::ostringstream text;
  char part[65536];
  for (ssize_t got; (got = read(STDIN_FILENO, part, sizeof part)) > 0;) text.write(part, got);
  const std::string payload = text.str();
  Load client(port);
  const auto start = std::chrono::steady_clock::now();
  const int64_t done = work == "pipe"   ? client.pipe(count, payload)
                       : work == "cast" ? client.cast(count, payload)
                                        : client.flood(count, size, payload.size());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("{\"n\": %ld, \"wall_s\": %.6f}\n", static_cast<long>(done), seconds);
  return 0;
}

}  // namespace

int main(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN);
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (args.size() >= 2 && args[0] == "serve") {
    const auto has = [&](const char *flag) { return std::find(args.begin() + 2, args.end(), flag) != args.end(); };
    Server(args[1], has("--one-frame-per-write"), has("--route")).run();
    return 0;
  }
  if (args.size() == 5 && args[0] == "load") {
    return load(std::stoi(args[1]), args[2], std::stoll(args[3]), std::stoll(args[4]));
  }
  std::fprintf(stderr, "usage: server serve PAYLOADS [--one-frame-per-write] [--route] | load PORT pipe|cast|flood COUNT SIZE\n");
  return 2;
}
