// Trainer: weights from labelled rows, the same bits for the same rows, options and seed.
//
// Method   logistic regression (AdaGrad) on term counts over the square root of the n-gram count, one
//          head at a time, rows in a shuffled order drawn from the seed; then rounded to int8.
//          Calibration uses scores of rows whose kin of sources (name up to the first '-') were left
//          out of training: valid rows from a known source flatter.
// Rows     `sensitive` is left out; with drop_share_alike every row whose licence says "-SA" too.
// Errors   Errc::invalid when a head lacks rows of either kind.
// Threads  one; about a minute for 15,000 rows.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "safety/model.hpp"
#include "safety/rows.hpp"

namespace parley::safety {

struct TrainOptions {
    uint64_t seed = 42;
    uint32_t epochs = 4;
    double rate = 0.3;
    double l2 = 1e-6;
    bool drop_share_alike = true;
    bool calibrate =
        true;  // false: every source is trained on and the centre is 0 (folds themselves)
    // Shares of ordinary benign text, from sources unseen in training, that may lie above 0.5.
    double fpr_unsafe = 0.008;
    double fpr_kind = 0.001;
    double fpr_output = 0.002;
    std::function<void(const std::string&)> progress;
};

// Score of one row by weights that never saw its kin.
struct LeftOut {
    size_t row = 0;  // index into the rows
    HeadValues z{};
};

struct Trained {
    std::string file;  // the weights file
    std::vector<LeftOut> left_out;
};

base::Result<Trained> train(const std::vector<Row>& rows, const TrainOptions& options);

// "pyrit" of "pyrit-templates": sources that must be left out together.
std::string kin(const std::string& source);
// Highest z per head over all views of a text; zeros for a text that cannot be read.
HeadValues score_views(const Model& model, const std::string& text);

}  // namespace parley::safety
