#include "safety/rows.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <filesystem>

#include "base/file.hpp"

namespace parley::safety {
namespace {

base::Result<void> load_file(const std::string& path, std::vector<Row>& rows) {
    auto bytes = base::read_file(path);
    if (!bytes) return base::fail(bytes.error());
    simdjson::dom::parser parser;
    size_t line_number = 0;
    for (size_t at = 0; at < bytes->size();) {
        size_t end = bytes->find('\n', at);
        if (end == std::string::npos) end = bytes->size();
        const std::string line = bytes->substr(at, end - at);
        at = end + 1;
        ++line_number;
        if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
        auto bad = [&](std::string_view why) {
            return base::fail(base::Errc::invalid,
                              fmt::format("{}:{}: {}", path, line_number, why));
        };
        simdjson::dom::element root;
        if (parser.parse(line).get(root) != simdjson::SUCCESS || !root.is_object())
            return bad("not a JSON object");
        auto field = [&](const char* key, std::string& into) {
            std::string_view value;
            if (root[key].get(value) == simdjson::SUCCESS) into = value;
        };
        Row row;
        std::string_view text;
        if (root["text"].get(text) != simdjson::SUCCESS) return bad("no 'text'");
        row.text = text;
        row.label = "benign";
        std::string side = "input";
        field("id", row.id);
        field("label", row.label);
        field("category", row.category);
        field("source", row.source);
        field("license", row.license);
        field("side", side);
        if (side != "input" && side != "output") return bad("'side' is neither input nor output");
        row.output = side == "output";
        bool hard = false;
        if (root["hard"].get(hard) == simdjson::SUCCESS) row.hard = hard;
        rows.push_back(std::move(row));
    }
    return {};
}

}  // namespace

base::Result<void> load_rows(const std::string& path, std::vector<Row>& rows) {
    namespace fs = std::filesystem;
    std::error_code code;
    if (!fs::is_directory(path, code)) return load_file(path, rows);
    std::vector<std::string> files;
    for (const auto& entry : fs::directory_iterator(path, code))
        if (entry.path().extension() == ".jsonl") files.push_back(entry.path().string());
    if (files.empty())
        return base::fail(base::Errc::not_found, fmt::format("no *.jsonl file in '{}'", path));
    std::sort(files.begin(), files.end());
    for (const std::string& file : files)
        if (auto done = load_file(file, rows); !done) return done;
    return {};
}

}  // namespace parley::safety
