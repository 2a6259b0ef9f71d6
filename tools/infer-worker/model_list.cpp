#include "model_list.hpp"

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "base/log.hpp"
#include "load.hpp"
#include "model/served_name.hpp"
#include "simulated/vocabulary.hpp"

namespace parley::infer_worker {
namespace {

constexpr std::string_view kNameKey = ":name=", kBlocksKey = ":kv-blocks=", kSlotsKey = ":slots=";

// Cuts `KEY value` off the end of `text`, where the value reaches to the end.
bool cut(std::string_view& text, std::string_view key, std::string& value) {
    const size_t at = text.rfind(key);
    if (at == std::string_view::npos) return false;
    const std::string_view rest = text.substr(at + key.size());
    if (rest.find(':') != std::string_view::npos) return false;
    value = rest;
    text = text.substr(0, at);
    return true;
}

bool number(const std::string& text, uint32_t most, uint32_t& out) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    return error == std::errc() && end == text.data() + text.size() && out > 0 && out <= most;
}

// The last `:word=` of `file`, if it looks as if it were meant for us.
std::string_view strange_key(std::string_view file) {
    const size_t at = file.rfind(':');
    if (at == std::string_view::npos) return {};
    const size_t equals = file.find('=', at);
    if (equals == std::string_view::npos || file.find('/', at) < equals) return {};
    return file.substr(at + 1, equals - at - 1);
}

}  // namespace

base::Result<ModelSpec> parse_spec(std::string_view text) {
    const auto bad = [&](const std::string& why) {
        return base::fail(base::Errc::config, "--model '" + std::string(text) + "': " + why);
    };
    ModelSpec spec;
    spec.text = text;
    std::string_view file = text;
    std::string value;
    for (;;) {
        if (cut(file, kNameKey, value)) {
            if (value.empty()) return bad("the name is empty");
            spec.name = value;
        } else if (cut(file, kBlocksKey, value)) {
            if (!number(value, 1 << 22, spec.kv_blocks))
                return bad("kv-blocks is a number from 1 to 4194304, not '" + value + "'");
        } else if (cut(file, kSlotsKey, value)) {
            if (!number(value, 8192, spec.slots))
                return bad("slots is a number from 1 to 8192, not '" + value + "'");
        } else {
            break;
        }
    }
    if (file.empty()) return bad("it names no file");
    const std::string_view strange = strange_key(file);
    std::error_code none;
    if (!strange.empty() && !std::filesystem::exists(file, none))
        return bad("'" + std::string(strange) + "' is nothing that can be said of a model: name, "
                   "kv-blocks and slots can");
    spec.file = file;
    return spec;
}

base::Result<std::vector<ModelSpec>> specs_of(const Options& o) {
    std::vector<ModelSpec> specs;
    if (o.simulate) {
        ModelSpec spec;
        spec.name = o.model_name.empty() ? std::string(simulated::kName) : o.model_name;
        spec.text = "--simulate";
        return std::vector<ModelSpec>{spec};
    }
    for (const std::string& text : o.models) {
        auto spec = parse_spec(text);
        if (!spec) return base::fail(spec.error());
        for (const ModelSpec& other : specs)
            if (other.file == spec->file)
                return base::fail(base::Errc::config, "--model names '" + spec->file + "' twice");
        specs.push_back(std::move(*spec));
    }
    if (!o.draft.empty() && specs.size() > 1)
        return base::fail(base::Errc::usage, "--draft with several models: it has the tokenizer of one");
    if (specs.empty())
        return base::fail(base::Errc::usage,
                          "no model: name a GGUF file with --model or PARLEY_MODEL");
    if (!o.model_name.empty()) {
        if (specs.size() > 1)
            return base::fail(base::Errc::usage,
                              "--model-name with several models: write --model FILE:name=NAME");
        if (specs[0].name.empty()) specs[0].name = o.model_name;
    }
    return specs;
}

base::Result<engine::Model> make(const ModelSpec& spec, Options o) {
    o.model = spec.file;
    // One that is loaded later has no draft model.
    if (!o.simulate && std::find(o.models.begin(), o.models.end(), spec.text) == o.models.end()) o.draft.clear();
    if (spec.kv_blocks > 0) o.forward.kv_blocks = spec.kv_blocks;
    auto loaded = load(o);
    if (!loaded) return base::fail(loaded.error());
    engine::Model model;
    model.name = spec.name.empty() ? model::served_name(spec.file) : spec.name;
    model.source = spec.text;
    model.artifact = std::move(loaded->artifact);
    model.forward = std::move(loaded->forward);
    model.draft = std::move(loaded->draft);
    model.options = o.service;
    if (spec.slots > 0) model.options.engine.slots_max = spec.slots;
    base::log(base::Level::info, "worker.loaded",
              {{"model", model.artifact->name()},
               {"hash", model.artifact->hash()},
               {"served_as", model.name},
               {"kernel", model.forward->kernel()},
               {"threads", model.forward->threads()},
               {"kv_blocks", model.forward->kv_blocks()},
               {"kv_type", o.forward.kv_type},
               {"weight_bytes", model.forward->weight_bytes()},
               {"kv_bytes", model.forward->kv_bytes()},
               {"draft", o.draft},
               {"context", o.service.engine.context_tokens},
               {"load_ms", loaded->load_ms}});
    return model;
}

base::Result<std::vector<engine::Model>> make_all(const std::vector<ModelSpec>& specs,
                                                  const Options& options) {
    std::vector<engine::Model> models;
    for (const ModelSpec& spec : specs) {
        auto model = make(spec, options);
        if (!model) return base::fail(model.error());
        models.push_back(std::move(*model));
    }
    return models;
}

}  // namespace parley::infer_worker
