// Row: one labelled text, as the JSON Lines files for training and evaluation hold it.
//
// Fields   id, text, label (benign, jailbreak, prompt_injection, harmful, sensitive), category (an
//          MLCommons hazard code or ""), source, license, side (input, output), hard (benign, but
//          looks dangerous). Only text is required; label defaults to benign, side to input.
// Errors   Errc::invalid names file and line.
// Threads  values.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"

namespace parley::safety {

struct Row {
    std::string id, text, label, category, source, license;
    bool output = false;
    bool hard = false;
    bool benign() const { return label == "benign"; }
    // Ordinary benign text: what thresholds are set on.
    bool ordinary() const { return benign() && !hard; }
};

// Appends the rows of a file, or of each *.jsonl file of a folder in order of name.
base::Result<void> load_rows(const std::string& path, std::vector<Row>& rows);

}  // namespace parley::safety
