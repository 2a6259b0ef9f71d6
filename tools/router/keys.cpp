// router key: the CURVE keys of what talks over tcp.
#include <cstdio>

#include "base/json.hpp"
#include "options.hpp"
#include "pipe/key_files.hpp"

namespace parley::router {

namespace {

int say(const Options& o, const std::string& public_key) {
    std::string line;
    if (o.json)
        base::JsonWriter(line).object().field("file", o.key_file).field("public_key", public_key).end();
    else
        line = public_key;
    std::printf("%s\n", line.c_str());
    return 0;
}

}  // namespace

int create_key(const Options& o) {
    const auto pair = pipe::make_key_files(o.key_file);
    return pair ? say(o, pair->public_key) : base::report("router", pair.error());
}

int show_key(const Options& o) {
    const auto pair = pipe::read_curve_pair(o.key_file);
    return pair ? say(o, pair->public_key) : base::report("router", pair.error());
}

}  // namespace parley::router
