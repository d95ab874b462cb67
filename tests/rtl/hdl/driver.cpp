// Runs case after case on `pe_array`. A case comes on standard input and its result leaves on standard output, both as
// 64-bit words of the machine's byte order; `tests/rtl/run.py` is at the other end.
//
// Case:   number of writes, number of reads, quiet cycles that end a run, most cycles of a run;
//         for each write: unit | space << 16 | address << 32, then the data;
//         for each read: unit | address << 32, then the number of bytes.
// Result: 1 if the run came to its end else 0, last_event, number of events, number of words read;
//         for each event: kind | unit << 16 | cycle << 32 (the commands of a list begin in order, so they are counted);
//         for each read: its words, the last one whole.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <unistd.h>
#include <vector>

#include "Vtop.h"
#include "verilated.h"

namespace {

enum Kind : uint64_t { WORK_START, WORK_END, BUS_GRANT, TREE_START };
constexpr uint64_t MOST_WORDS = 1 << 28;  // in one part of a case: more is a broken stream

FILE* results;

bool read_words(std::vector<uint64_t>& words, uint64_t count) {
    if (count > MOST_WORDS) {
        fprintf(stderr, "driver: a case with %llu words\n", static_cast<unsigned long long>(count));
        exit(2);
    }
    words.resize(count);
    const size_t got = fread(words.data(), sizeof(uint64_t), count, stdin);
    if (got == count) return true;
    if (got == 0 && feof(stdin)) return false;
    fprintf(stderr, "driver: a case ends early\n");
    exit(2);
}

void write_words(const std::vector<uint64_t>& words) {
    if (fwrite(words.data(), sizeof(uint64_t), words.size(), results) != words.size()) {
        perror("driver");
        exit(2);
    }
}

// What no reset clears begins with random contents, always the same ones.
VerilatedContext* seeded(VerilatedContext& context) {
    context.randReset(2);
    context.randSeed(1);
    return &context;
}

struct Driver {
    VerilatedContext context;
    Vtop top{seeded(context)};
    std::vector<uint64_t> events;
    unsigned long long number = 0;  // of the case

    // Ports of up to 64 bits are integers, wider ones arrays of 32-bit words.
    template <typename Integer>
    void note(Kind kind, const Integer& bits) {
        note_word(kind, 0, bits);
    }
    template <std::size_t Words>
    void note(Kind kind, const VlWide<Words>& bits) {
        for (std::size_t word = 0; word < Words; ++word) note_word(kind, 32 * word, bits[word]);
    }
    void note_word(Kind kind, uint64_t first_unit, uint64_t bits) {
        for (; bits; bits &= bits - 1) {
            const uint64_t unit = first_unit + __builtin_ctzll(bits);
            events.push_back(kind | unit << 16 | static_cast<uint64_t>(top.now) << 32);
        }
    }

    void falling() {
        top.clk = 0;
        top.eval();
    }
    void rising() {
        top.clk = 1;
        top.eval();
        context.timeInc(1);
        if (context.gotFinish()) {  // an assertion has failed and said so
            fprintf(stderr, "driver: case %llu stopped in cycle %u\n", number, top.now);
            exit(3);
        }
    }
    void clock() {
        falling();
        rising();
    }

    bool run(uint64_t quiet_cycles, uint64_t most_cycles) {
        uint64_t quiet = 0;
        for (uint64_t cycle = 0; cycle < most_cycles; ++cycle) {
            falling();
            note(WORK_START, top.work_start);
            note(WORK_END, top.work_end);
            note(BUS_GRANT, top.bus_grant);
            note(TREE_START, top.tree_start);
            quiet = top.idle ? quiet + 1 : 0;
            rising();
            if (quiet >= quiet_cycles) return true;
        }
        return false;
    }

    bool next() {
        std::vector<uint64_t> header, writes, reads;
        if (!read_words(header, 4)) return false;
        if ((!read_words(writes, 2 * header[0]) && header[0]) || (!read_words(reads, 2 * header[1]) && header[1])) {
            fprintf(stderr, "driver: a case ends early\n");
            exit(2);
        }
        top.go = 0;
        top.host_write = 0;
        top.rst = 1;
        for (int i = 0; i < 4; ++i) clock();
        top.rst = 0;

        top.host_write = 1;
        for (std::size_t i = 0; i < writes.size(); i += 2) {
            top.host_unit = writes[i] & 0xffff;
            top.host_space = writes[i] >> 16 & 7;
            top.host_addr = writes[i] >> 32;
            top.host_wdata = writes[i + 1];
            clock();
        }
        top.host_write = 0;

        events.clear();
        top.go = 1;
        clock();
        top.go = 0;
        const bool ended = run(header[2], header[3]);

        std::vector<uint64_t> data;
        for (std::size_t i = 0; i < reads.size(); i += 2) {
            top.host_unit = reads[i] & 0xffff;
            for (uint64_t byte = 0; byte < reads[i + 1]; byte += 8) {
                top.host_addr = (reads[i] >> 32) + byte;
                falling();  // no rising edge: nothing goes on
                data.push_back(top.host_rdata);
            }
        }
        write_words({ended, top.last_event, events.size(), data.size()});
        write_words(events);
        write_words(data);
        fflush(results);
        ++number;
        return true;
    }
};

}  // namespace

int main() {
    // What the RTL prints must not get among the results.
    results = fdopen(dup(STDOUT_FILENO), "wb");
    if (!results || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
        perror("driver");
        return 2;
    }
    setvbuf(stdout, nullptr, _IONBF, 0);
    static Driver driver;
    driver.context.fatalOnError(false);
    while (driver.next()) {}
    return 0;
}
