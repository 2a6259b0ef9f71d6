// Stages: the filter in a shell pipe, on parley/1 JSON Lines.
//
// InputStage   an ASK (or a bare Messages API body) that is allowed or flagged goes on as the very
//              line it was; a blocked one becomes its refusal answer (EVENT lines, END ok); one that
//              cannot be judged becomes END with the error. Every other line goes on untouched.
// OutputStage  ASK lines are kept as the answer's question and swallowed; EVENT and END lines go on as
//              they were once judged; a blocked answer ends with refusal. What is cut short by the end
//              of the input is not let out: END api_error.
// Errors       a line that is not of the protocol ends nothing but itself: an END for its id.
// Threads      one.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "filter/answer.hpp"
#include "safety/judge.hpp"

namespace parley::filter {

using PutLine = std::function<void(const std::string&)>;

class InputStage {
  public:
    InputStage(std::shared_ptr<const safety::Policy> policy, PutLine put);
    void line(const std::string& line, uint64_t number);
    bool blocked() const { return blocked_; }
    bool bad() const { return bad_; }

  private:
    safety::Judge judge_;
    PutLine put_;
    bool blocked_ = false, bad_ = false;
};

class OutputStage {
  public:
    OutputStage(std::shared_ptr<const safety::Policy> policy, PutLine put);
    void line(const std::string& line, uint64_t number);
    void finish();
    bool blocked() const { return blocked_; }
    bool bad() const { return bad_; }

  private:
    struct Stream {
        std::unique_ptr<Answer> answer;
        uint32_t attempt = 1;
        uint64_t seq = 0;   // events sent
        bool over = false;  // END sent; what still comes is dropped
    };
    void send(const std::string& id, Stream& stream, std::vector<OutEvent>& events);
    void end(const std::string& id, Stream& stream, pipe::EndMeta meta);
    void fail_line(const std::string& id, std::string_view status, std::string_view why);

    std::shared_ptr<const safety::Policy> policy_;
    PutLine put_;
    std::map<std::string, Stream> streams_;
    bool blocked_ = false, bad_ = false;
};

}  // namespace parley::filter
