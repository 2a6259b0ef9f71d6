// cost: how long an iteration would take on the machine that is simulated.
//
//   step + row · (decoding rows) + context · (tokens before them) / 1000 + prefill · (prompt rows)
//
// where a guessed token behind a decoding row counts as a prompt row: a row more for the same keys.
//
// all over `speed`. An iteration of prompts alone costs the step too: the weights are read once.
// Units    microseconds. Numbers from `infer-worker bench` belong here; infer-worker(8) says where the
//          defaults are from.
// Threads  values.
#pragma once

#include <algorithm>
#include <cstdint>

namespace parley::simulated {

struct Cost {
    static constexpr double kIterationNsMax = 3.6e12;  // an hour, whatever was asked for

    double step_us = 1700;     // any iteration
    double row_us = 490;       // more, for each sequence that decodes
    double context_us = 1400;  // more, for each 1,000 tokens before a decoding row
    double prefill_us = 260;   // more, for each token of a prompt
    double speed = 1;          // above 0: how many times as fast as all that

    int64_t iteration_ns(uint64_t decode_rows, uint64_t context_tokens,
                         uint64_t prefill_rows) const {
        const double us = step_us + row_us * static_cast<double>(decode_rows) +
                          context_us * static_cast<double>(context_tokens) / 1000 +
                          prefill_us * static_cast<double>(prefill_rows);
        return static_cast<int64_t>(std::min(us * 1000 / speed, kIterationNsMax));
    }
};

}  // namespace parley::simulated
