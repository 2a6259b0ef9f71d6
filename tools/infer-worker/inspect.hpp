// The verbs that look without computing: `info` and `tokenize` (see infer-worker(8)).
//
// Each writes data to standard output, reports errors as the other verbs do, and returns the exit
// status.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace parley::infer_worker {

int run_info(const std::string& model_path, bool json);

struct TokenizeOptions {
    std::string model;
    std::string chat_template;        // family, for `messages`; empty: by the file's own text
    std::optional<std::string> text;  // the input itself, instead of `input`
    std::string input = "-";          // file; - is standard input
    uint64_t input_bytes_max = 64ull << 20;
    bool json = false;
    bool special = false;   // spellings of control tokens become (with decode: are shown for) them
    bool decode = false;    // the input is ids, apart by spaces or commas; the output is text
    bool messages = false;  // the input is a Messages API body; the ids are its whole prompt
};

int run_tokenize(const TokenizeOptions& options);

}  // namespace parley::infer_worker
