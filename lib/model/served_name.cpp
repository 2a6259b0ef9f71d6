#include "model/served_name.hpp"

#include <algorithm>

namespace parley::model {
namespace {

// q4_0, q4_k_m, iq3_xs, f16, bf16, f32, fp16 …
bool is_quantisation(std::string_view word) {
    if (word == "f16" || word == "f32" || word == "bf16" || word == "fp16" || word == "fp32")
        return true;
    if (word.rfind("iq", 0) == 0) word.remove_prefix(1);
    return word.size() >= 2 && word[0] == 'q' && word[1] >= '0' && word[1] <= '9';
}

}  // namespace

std::string served_name(std::string_view path) {
    std::string name(
        path.substr(path.rfind('/') == std::string_view::npos ? 0 : path.rfind('/') + 1));
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) {
        return static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    });
    if (name.size() > 5 && name.compare(name.size() - 5, 5, ".gguf") == 0)
        name.resize(name.size() - 5);
    for (char& c : name) {
        const bool plain =
            (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
        if (!plain) c = '-';
    }
    if (const size_t cut = name.find_last_of(".-");
        cut != std::string::npos && cut > 0 &&
        is_quantisation(std::string_view(name).substr(cut + 1)))
        name.resize(cut);
    while (!name.empty() && (name.front() == '-' || name.front() == '.')) name.erase(name.begin());
    while (!name.empty() && (name.back() == '-' || name.back() == '.')) name.pop_back();
    return name.empty() ? "model" : name;
}

}  // namespace parley::model
