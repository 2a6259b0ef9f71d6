// Any bytes as HASH.tok, as they are and behind a check sum that fits: refused, or usable and written
// back the same.
#include <cstdlib>
#include <cstring>

#include "base/text.hpp"
#include "model/artifact.hpp"
#include "replay_main.hpp"

namespace {

void try_one(const std::string& bytes) {
    using namespace parley;
    const auto artifact = model::Artifact::parse(bytes);
    if (!artifact) return;
    if (artifact->serialise() != bytes) std::abort();
    const auto& tokenizer = artifact->tokenizer();
    const std::vector<model::Turn> turns = {{model::Role::user, "the <|im_end|> 12 \xff"}};
    const auto ids = artifact->chat_template().render(tokenizer, turns);
    (void)tokenizer.decode(ids);
    for (const auto id : tokenizer.encode("<|im_start|>the the"))
        if (tokenizer.is_control(id)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    std::string bytes(reinterpret_cast<const char*>(data), size);
    try_one(bytes);
    if (size < 16) return 0;
    const uint32_t crc = parley::base::crc32c(std::string_view(bytes).substr(16));
    std::memcpy(bytes.data() + 12, &crc, sizeof crc);
    try_one(bytes);
    return 0;
}
