// The models of a worker: how --model names one, and loading beside running streams.
//
// Spec     FILE[:name=NAME][:kv-blocks=N][:slots=N]; what is not said comes from --model-name,
//          --kv-blocks and --slots-max. An ending that looks like one and is none is refused, unless
//          there is such a file.
// Loading  make() in any thread: files are mapped, hashed and repacked without the working loop.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/models.hpp"
#include "options.hpp"

namespace parley::infer_worker {

struct ModelSpec {
    std::string file;
    std::string name;        // empty: model::served_name of the file
    uint32_t kv_blocks = 0;  // 0: --kv-blocks
    uint32_t slots = 0;      // 0: --slots-max
    std::string text;        // as it was given
};

// Errc::config: an empty file, a bad number or name, an ending that means nothing.
base::Result<ModelSpec> parse_spec(std::string_view text);
// Of --model, or of --simulate (one, without file). Errc::usage: none, --model-name with several;
// Errc::conflict: the same twice.
base::Result<std::vector<ModelSpec>> specs_of(const Options& options);

base::Result<engine::Model> make(const ModelSpec& spec, Options options);
// All or, with the error of the first that fails, none.
base::Result<std::vector<engine::Model>> make_all(const std::vector<ModelSpec>& specs,
                                                  const Options& options);

}  // namespace parley::infer_worker
