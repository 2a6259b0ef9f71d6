// served_name: what clients call a model file when nobody says otherwise.
//
// "SmolLM2-135M-Instruct.Q4_1.gguf" → "smollm2-135m-instruct": the stem in lower case without its
// quantisation, other characters than [a-z0-9._-] as '-'. The file's own general.name is written for
// people ("Smollm2 135M 8k Lc100K Mix1 Ep2") and makes a poor identifier.
#pragma once

#include <string>
#include <string_view>

namespace parley::model {

std::string served_name(std::string_view path);  // "model" where nothing is left

}  // namespace parley::model
