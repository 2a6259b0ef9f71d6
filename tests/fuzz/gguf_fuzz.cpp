// Any bytes as a model file: refused, or every tensor, key and string of it can be read.
#include <algorithm>
#include <cstdlib>

#include "model/artifact.hpp"
#include "model/gguf.hpp"
#include "replay_main.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace parley;
    const auto file = model::Gguf::parse({data, data + size});
    if (!file) {
        if (file.error().what.empty()) std::abort();
        return 0;
    }
    uint64_t sum = 0;
    uint64_t bytes = 0;
    for (const auto& tensor : file->tensors()) {
        if (file->tensor(tensor.name) != &tensor) std::abort();
        for (const uint8_t byte : tensor.data) sum += byte;
        bytes += tensor.data.size();
    }
    if (bytes > size) std::abort();
    for (const auto& key : file->keys()) {
        sum += file->show(key).size();
        if (const auto texts = file->strings(key))
            for (const auto text : *texts)
                for (const char c : text) sum += static_cast<uint8_t>(c);
        (void)file->integers(key);
        (void)file->reals(key);
        (void)file->real(key);
    }
    volatile uint64_t keep = sum;
    (void)keep;
    const auto artifact = model::Artifact::from_gguf(*file, 0, "");
    if (artifact && !model::Artifact::parse(artifact->serialise())) std::abort();
    return 0;
}
